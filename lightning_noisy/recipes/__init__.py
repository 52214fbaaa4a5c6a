"""Recipes: the configuration files that ship with the package, what a file goes on top of, and what it says in all."""

from lightning_noisy.recipes.files import (
    Config,
    config_chain,
    config_values,
    find_config,
    is_file,
    recipe_folder,
    recipe_list,
    recipe_names,
    run_name,
)
from lightning_noisy.recipes.settings import TENSORBOARD, Settings, on_top, recipe_settings

__all__ = [
    "TENSORBOARD",
    "Config",
    "Settings",
    "config_chain",
    "config_values",
    "find_config",
    "is_file",
    "on_top",
    "recipe_folder",
    "recipe_list",
    "recipe_names",
    "recipe_settings",
    "run_name",
]
