"""LightningModules: one network and one loss, and the strategies, each a file of its own."""

from lightning_noisy.modules.alternating import AlternatingModule
from lightning_noisy.modules.co_ldl import CoLDL
from lightning_noisy.modules.co_teaching import CoTeaching
from lightning_noisy.modules.co_teaching_plus import CoTeachingPlus
from lightning_noisy.modules.decoupling import Decoupling
from lightning_noisy.modules.disc import DISC
from lightning_noisy.modules.divide_mix import DivideMix
from lightning_noisy.modules.elr_plus import ELRPlus
from lightning_noisy.modules.gss_divide_mix import GSSDivideMix
from lightning_noisy.modules.gss_dual import GSSDual
from lightning_noisy.modules.jo_src import JoSRC
from lightning_noisy.modules.jocor import JoCoR
from lightning_noisy.modules.mean_teacher import MeanTeacherModule
from lightning_noisy.modules.mix_match import MixMatchModule
from lightning_noisy.modules.multi_network import MultiNetworkModule
from lightning_noisy.modules.noisy_label_module import NoisyLabelModule
from lightning_noisy.modules.sed import SED
from lightning_noisy.modules.small_loss import SmallLossModule
from lightning_noisy.modules.sprl import SPRL
from lightning_noisy.modules.strategy import StrategyModule
from lightning_noisy.modules.sure import SURE
from lightning_noisy.modules.unicon import UNICON

__all__ = [
    "DISC",
    "SED",
    "SPRL",
    "SURE",
    "UNICON",
    "AlternatingModule",
    "CoLDL",
    "CoTeaching",
    "CoTeachingPlus",
    "Decoupling",
    "DivideMix",
    "ELRPlus",
    "GSSDivideMix",
    "GSSDual",
    "JoCoR",
    "JoSRC",
    "MeanTeacherModule",
    "MixMatchModule",
    "MultiNetworkModule",
    "NoisyLabelModule",
    "SmallLossModule",
    "StrategyModule",
]
