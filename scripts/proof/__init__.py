"""What the proofs of training share (prove_training.py, prove_fine_tuning.py): images, runs, scores, tables."""
