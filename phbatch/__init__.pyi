from . import csbdeep, report, simulate
from .clusters.status import RunStatus, cancel, logs, status
from .clusters.submit import SubmitResult, submit
from .clusters.task import run_part
from .frames.position_statistics import PositionStatistics
from .frames.table import StatisticsTable
from .planning.request import ClusterRequest
from .running.array_statistics import image_statistics
from .running.arrays import normalize, restore
from .running.convert import convert
from .running.frame_statistics import statistics
from .running.illumination import IlluminationResult, illumination
from .running.open_array import open  # noqa: A004 - as `phbatch.open`
from .running.open_tree import open_datatree
from .running.parts import begin_parts
from .running.probe import request_cluster
from .running.run import plan, run
from .simulate import PhaseContrast
from .tools.compare import compare_rules
from .tools.comparison import Comparison, ComparisonReport
from .tools.demo import DemoResult, run_demo
from .tools.doctor import DoctorReport, Finding, doctor
from .tools.evaluate import evaluate
from .tools.evaluation import Calibration, Evaluation
from .tools.explain import Explanation, explain
from .tools.export import export
from .tools.info import info
from .tools.preview import Preview, PreviewRow, preview
from .tools.report_page import RunReport, collect_report, write_report
from .tools.residual import RemovedPlace, ResidualCheck
from .tools.scores import FrameScores
from .tools.simulated import write_plate, write_time_lapse
from .tools.training import train
from .tools.verify import repair, verify
from .training.session import TrainingResult
from .words.errors import (
    ClusterError,
    InputError,
    InterruptedRunError,
    MemoryLimitError,
    ModelError,
    OutputError,
    PhbatchError,
    UsageError,
)
from .words.normalization import Normalization
from .words.results import Damage, PartResult, PartsReport, PlanReport, RunResult, VerifyReport
from .words.settings import RunSettings
from .words.training import TrainingSettings

__all__ = [
    "Calibration",
    "ClusterError",
    "ClusterRequest",
    "Comparison",
    "ComparisonReport",
    "Damage",
    "DemoResult",
    "DoctorReport",
    "Evaluation",
    "Explanation",
    "Finding",
    "FrameScores",
    "IlluminationResult",
    "InputError",
    "InterruptedRunError",
    "MemoryLimitError",
    "ModelError",
    "Normalization",
    "OutputError",
    "PartResult",
    "PartsReport",
    "PhaseContrast",
    "PhbatchError",
    "PlanReport",
    "PositionStatistics",
    "Preview",
    "PreviewRow",
    "RemovedPlace",
    "ResidualCheck",
    "RunReport",
    "RunResult",
    "RunSettings",
    "RunStatus",
    "StatisticsTable",
    "SubmitResult",
    "TrainingResult",
    "TrainingSettings",
    "UsageError",
    "VerifyReport",
    "begin_parts",
    "cancel",
    "collect_report",
    "compare_rules",
    "convert",
    "csbdeep",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "illumination",
    "image_statistics",
    "info",
    "logs",
    "normalize",
    "open",
    "open_datatree",
    "plan",
    "preview",
    "repair",
    "report",
    "request_cluster",
    "restore",
    "run",
    "run_demo",
    "run_part",
    "simulate",
    "statistics",
    "status",
    "submit",
    "train",
    "verify",
    "write_plate",
    "write_report",
    "write_time_lapse",
]
