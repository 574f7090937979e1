"""Records and predictions on disk: one JSON a run, written once, and beside it what it predicted.

    root/records/<identity>/<method>/<run_id>.json   the commit point of a run
    root/records/<identity>/<method>/<run_id>.npz    logits, targets, keys and label names; as
                                                     validation_* those of that split, if any; and
                                                     what each image does to mAP (influence*)
    root/records/<identity>/<method>/superseded/     both, of runs that were made again since
    root/runs/<run_id>/                              logs and checkpoints

A file appears under its name only when it is whole: it is written under another name in the same
folder, flushed to the disk and renamed. A run that was killed leaves such a file at most, and the
next store that is opened sweeps it away.
"""

from mlbench.store.archive import DAMAGE, HELD_OUT, damaged, in_parts
from mlbench.store.influence import Influence
from mlbench.store.store import Store

__all__ = ["DAMAGE", "HELD_OUT", "Influence", "Store", "damaged", "in_parts"]
