"""What the documentation site makes when it is built: pages of methods, of the API and of commands, and pictures."""
