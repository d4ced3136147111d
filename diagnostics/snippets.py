"""Snippets: the lines of code to paste, for a Lightning script or for a loop of one's own."""

from __future__ import annotations

from .rule import Context

CLASSES = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}


def own_loop(context: Context) -> bool:
    """Tell whether the run trains in a loop of its own, without a Trainer."""
    return context.meta.config.get("loop") == "own"


def optimizer_snippet(context: Context, rate: float) -> str:
    """Return the lines that make the run's optimizer with another learning rate."""
    told = context.optimizer
    name = CLASSES.get(context.optimizer_name.lower(), context.optimizer_name)
    if not told:
        return f"lr = {rate:g}"
    parts = [f"lr={rate:g}"]
    for key, default in (
        ("momentum", 0),
        ("nesterov", False),
        ("betas", None),
        ("weight_decay", 0),
    ):
        value = told.get(key)
        if value not in (None, default):
            parts.append(f"{key}={tuple(value) if isinstance(value, list) else value}")
    if own_loop(context):
        return f"optimizer = torch.optim.{name}(model.parameters(), {', '.join(parts)})"
    return (
        "def configure_optimizers(self):\n"
        f"    return torch.optim.{name}(self.parameters(), {', '.join(parts)})"
    )


def clip_snippet(context: Context, value: float) -> str:
    """Return the line that clips gradients by their norm."""
    if own_loop(context):
        return (
            "# between loss.backward() and optimizer.step()\n"
            f"torch.nn.utils.clip_grad_norm_(model.parameters(), {value:g})"
        )
    return f"trainer = Trainer(gradient_clip_val={value:g})"


def resume_snippet(context: Context, path: str) -> str:
    """Return the line that goes on from a checkpoint."""
    if own_loop(context):
        return f'checkpoint = torch.load("{path}")  # into model and optimizer, before going on'
    return f'trainer.fit(model, ckpt_path="{path}")'
