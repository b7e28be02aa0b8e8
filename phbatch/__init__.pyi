from . import csbdeep, report, simulate
from .api import plan, run, statistics
from .compare import Comparison, compare_rules
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
from .results import PlanReport, RunResult
from .simulate import PhaseContrast
from .stages.table import StatisticsTable

__all__ = [
    "Comparison",
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
    "compare_rules",
    "csbdeep",
    "illumination",
    "image_statistics",
    "info",
    "normalize",
    "plan",
    "report",
    "restore",
    "run",
    "run_demo",
    "simulate",
    "statistics",
    "write_time_lapse",
]
