"""What all studies share: subjects, settings, ablation, statistics, folders."""
