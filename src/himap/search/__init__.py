"""The search for the accuracy-to-FLOPs Pareto front: space, samplers, trials on disk, held-out check."""
