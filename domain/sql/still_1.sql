-- Nobody folds or closes usage while functions are replaced: both hold a lock on closings, and what comes after this in the transaction waits until they
-- are done. It comes first, because a fold that had begun would else wait for a view that is being replaced, while this waited for the fold.
LOCK TABLE usage_closing IN EXCLUSIVE MODE;
