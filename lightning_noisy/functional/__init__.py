"""Pure functions of tensors: losses, edge scores and masks, schedules, noise matrices, draws."""
