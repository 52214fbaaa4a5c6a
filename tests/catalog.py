"""The recipes as they stand, each read once: most tests of all of them ask for the same."""

from contextlib import contextmanager
from copy import deepcopy
from functools import cache, partial

import pytest
import yaml

from lightning_noisy.recipes import config_chain, recipe_settings

FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads the same in a fifth of the time. The command line takes its own, which tells more of what is wrong."""

load = partial(yaml.load, Loader=FASTEST)


def settings_of(name):
    """A recipe with all that it goes on top of, to change at will."""
    return deepcopy(_settings(str(name)))


def layers_of(name):
    """What each file says on the way to a recipe, the lowest first, to change at will."""
    return deepcopy(_layers(str(name)))


@cache
def _settings(name):
    with fast_yaml():
        return recipe_settings(name)


@cache
def _layers(name):
    with fast_yaml():
        return [load(config.text) for config in config_chain(name)]


@contextmanager
def fast_yaml():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "SafeLoader", FASTEST)
        patch.setattr(yaml, "safe_load", load)
        yield
