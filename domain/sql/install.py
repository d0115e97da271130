"""Installing the database functions: the newest file of each name, all in one transaction."""

from pathlib import Path

ORDER = (
    *("still_1", "micros_1", "window_1", "entitled_1", "admit_1", "admit_2", "admit_3", "admit_4", "admit_5", "admit_6", "settle_1", "settle_2", "settle_3", "settle_4"),
    *("progress_1", "progress_2", "progress_3", "post_1", "move_1", "charge_1", "audit_6", "fold_1", "fold_2", "fold_3", "fold_people_1", "fold_4"),
    *("close_2", "languages_1", "queued_1", "erase_1", "erase_2", "retire_1", "retire_tokens_1"),
    *("correct_1", "correct_2", "rerate_1", "rerate_2", "watch_1", "watch_2", "plans_1", "partitions_1"),
)
"""Every function file in force, each after what it needs. A change is a new file with the next number; the old one stays for as long as a
process of the version before may run."""


def statements() -> list[tuple[str, str]]:
    """Return name and text of each file, in order."""
    folder = Path(__file__).parent
    return [(name, (folder / f"{name}.sql").read_text()) for name in ORDER]
