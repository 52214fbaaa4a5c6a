"""Train classifiers on data whose labels are partly wrong, inside PyTorch Lightning."""
