"""Find the best model: baselines, metrics, comparison, and how results are shown."""

BASELINE_NAMES = ("repeat", "blend", "dis")  # here, because the command's help lists them and should start quickly
