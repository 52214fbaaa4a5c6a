"""Pure functions of tensors: losses, edge scores and masks, mixtures and mixing, schedules, noise matrices, draws."""
