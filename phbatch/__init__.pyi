from . import csbdeep, report, simulate
from .api import plan, run, statistics
from .compare import compare_rules
from .comparison import Comparison, ComparisonReport
from .config import Normalization, RunSettings
from .demo import DemoResult, run_demo, write_time_lapse
from .errors import (
    InputError,
    InterruptedRunError,
    MemoryLimitError,
    ModelError,
    OutputError,
    PhbatchError,
    UsageError,
)
from .graph import image_statistics, normalize, restore
from .inspect import info
from .profiles import IlluminationResult, illumination
from .results import Damage, PlanReport, RunResult, VerifyReport
from .simulate import PhaseContrast
from .stages.table import StatisticsTable
from .verify import repair, verify

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
