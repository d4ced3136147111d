"""Peers on the runs of the fault bench: what their rules say of the same losses, norms and layers."""
