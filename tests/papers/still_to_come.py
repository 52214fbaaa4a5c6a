"""What docs/published.yaml names and what is not there yet. The list shrinks; a test says what has come."""


def below(folders, names):
    return {f"{folder}/{name}" for folder in folders.split() for name in names.split()}


SELECTION = (
    "co_teaching co_teaching_plus jocor jo_src co_ldl unicon sprl disc disc-dfc disc-dkan sed sed-dfc sed-dkan sed-kan"
)
RECIPES = {
    *below("co_teaching_dal jocor_dal divide_mix_dal", "cifar100"),
    *below("co_teaching_dal", "cifar100-co_teaching"),
    *below("jocor_dal", "cifar100-jocor"),
    *below("divide_mix_dal", "cifar100-divide_mix"),
    *below("dcm/cifar100-cnn7 dcm/cifar80no", SELECTION),
    *below("dcm/cifar100-cnn7", "sed-dropout sed-dropconnect sed-cdr"),
    *below("dcm/webvision", "decoupling co_teaching elr_plus disc disc-dfc disc-dkan"),
    *below("dcm/clothing1m", "co_teaching jocor elr_plus disc disc-dfc disc-dkan sure sure-dfc"),
    *below("gss/cifar10 gss/cifar100 gss/clothing1m gss/webvision", "elr_plus co_teaching jocor divide_mix ssl"),
}
"""Recipes that tables name and that are not written yet."""
