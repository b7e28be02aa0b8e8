from . import csbdeep, report, simulate
from .frames.table import StatisticsTable
from .running.arrays import image_statistics, normalize, restore
from .running.illumination import IlluminationResult, illumination
from .running.run import plan, run, statistics
from .simulate import PhaseContrast
from .tools.compare import compare_rules
from .tools.comparison import Comparison, ComparisonReport
from .tools.demo import DemoResult, run_demo, write_time_lapse
from .tools.info import info
from .tools.verify import repair, verify
from .words.errors import (
    InputError,
    InterruptedRunError,
    MemoryLimitError,
    ModelError,
    OutputError,
    PhbatchError,
    UsageError,
)
from .words.normalization import Normalization
from .words.results import Damage, PlanReport, RunResult, VerifyReport
from .words.settings import RunSettings

__all__ = [
    "Comparison",
    "ComparisonReport",
    "Damage",
    "DemoResult",
    "IlluminationResult",
    "InputError",
    "InterruptedRunError",
    "MemoryLimitError",
    "ModelError",
    "Normalization",
    "OutputError",
    "PhaseContrast",
    "PhbatchError",
    "PlanReport",
    "RunResult",
    "RunSettings",
    "StatisticsTable",
    "UsageError",
    "VerifyReport",
    "compare_rules",
    "csbdeep",
    "illumination",
    "image_statistics",
    "info",
    "normalize",
    "plan",
    "repair",
    "report",
    "restore",
    "run",
    "run_demo",
    "simulate",
    "statistics",
    "verify",
    "write_time_lapse",
]
