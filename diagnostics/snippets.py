"""Snippets: the lines of code to paste, for Lightning, Hugging Face's Trainer or an own loop."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..store.schemas import Json
from .in_place import (
    as_made,
    groups_by_layer,
    is_kept,
    raised_to,
    settings_in_place,
    warm_up_in_place,
)
from .rollback import going_back
from .rule import Context

CLASSES = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
OF_TORCH = (
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam"),
    *("RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
)
"""What torch.optim has; another optimizer is the run's own class, under its own name."""


def own_loop(context: Context) -> bool:
    """Tell whether the run trains in a loop of its own, without a Trainer."""
    return context.meta.config.get("loop") == "own"


def huggingface(context: Context) -> bool:
    """Tell whether Hugging Face's Trainer trains the run."""
    return context.meta.config.get("loop") == "transformers"


def activation_snippet(layer: str, module: str, function: str) -> str:
    """Return the line that puts another activation in the place of a module, or of a call.

    >>> activation_snippet("net.1", "GELU()", "gelu(x)")
    'model.set_submodule("net.1", torch.nn.GELU())'
    >>> activation_snippet("block.relu()#2", "GELU()", "gelu(x)")
    "x = torch.nn.functional.gelu(x)  # in block's forward, instead of call 2 of relu"
    """
    call, called, number = layer.partition("()")
    if not called:
        return f"model.set_submodule({json.dumps(layer, ensure_ascii=False)}, torch.nn.{module})"
    path, _, name = call.rpartition(".")
    which = f"call {number.removeprefix('#')} of {name}" if number else name
    where = f"{path or 'the model'}'s forward"
    return f"x = torch.nn.functional.{function}  # in {where}, instead of {which}"


def optimizer_snippet(context: Context, rate: float) -> str:
    """Return the lines that make the run's optimizer with another learning rate."""
    return optimizer_with(context, rate)


def manual(context: Context) -> bool:
    """Tell whether the module steps its optimizers itself, in a training_step of Lightning."""
    return context.meta.config.get("optimization") == "manual"


def optimizer_with(
    context: Context,
    rate: float,
    *,
    name: str | None = None,
    betas: list[float] | None = None,
    weight_decay: float | None = None,
) -> str:
    """Return the lines that make the run's optimizer with other settings, or another one by name.

    Where it has groups or a schedule, these stay: the settings alone are told, and where they go.
    """
    if huggingface(context):
        told = f"learning_rate={rate if name else as_made(context, rate):g}"
        told += "" if betas is None else f", adam_beta1={betas[0]:g}, adam_beta2={betas[1]:g}"
        told += "" if weight_decay is None else f", weight_decay={weight_decay:g}"
        # it knows no Adam but AdamW, which is the same where no weights decay
        told += "" if name is None else ', optim="adamw_torch"'
        raised = None if name else raised_to(context, rate)
        note = "" if raised is None else f"; and leave out what raised the rate to {raised:g}"
        return f"arguments = TrainingArguments({told})  # beside your own{note}"
    if is_kept(context):
        made = None if name is None else f"torch.optim.{name}"
        own = own_loop(context)
        return settings_in_place(
            context, rate, own=own, made=made, betas=betas, weight_decay=weight_decay
        )
    told = dict(context.optimizer)
    if betas is not None:
        told["betas"] = betas
    if weight_decay is not None and told:
        told["weight_decay"] = weight_decay
    if name is not None:
        told = {"name": name, "weight_decay": told.get("weight_decay")}
        return _made(context, name, rate, told)
    name = CLASSES.get(context.optimizer_name.lower(), context.optimizer_name)
    if not told:
        return f"lr = {rate:g}"
    return _made(context, name, rate, told)


def _made(context: Context, name: str, rate: float, told: Mapping[str, object]) -> str:
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
    made = f"torch.optim.{name}" if name in OF_TORCH else name
    several = len(context.meta.optimizers) > 1
    note = (
        f"  # the first of {len(context.meta.optimizers)}: with its own parameters"
        if several
        else ""
    )
    if own_loop(context):
        return f"optimizer = {made}(model.parameters(), {', '.join(parts)}){note}"
    return (
        "def configure_optimizers(self):\n"
        f"    return {made}(self.parameters(), {', '.join(parts)}){note}"
    )


def optimizer_by_layer(context: Context, rate: float, factors: Mapping[str, float]) -> str:
    """Return the lines that make the run's optimizer with the rate of some layers multiplied.

    A layer is told by its whole path: `net.1` is not the beginning of `net.10`.
    """
    if context.optimizer_name == "LBFGS":
        return "# LBFGS takes one group alone: no layer has a rate of its own"
    net = "model" if own_loop(context) or huggingface(context) else "self"
    if is_kept(context):
        return groups_by_layer(context, factors, net, "trainer" if huggingface(context) else "")
    lr = f"{rate:g}" if rate == rate else "lr"
    lines = [
        f"factors = {dict(factors)!r}",
        f"groups = [{{'params': [p], 'lr': {lr} * factors.get(n.rpartition('.')[0], 1.0)}} "
        f"for n, p in {net}.named_parameters()]",
    ]
    if huggingface(context):
        name = CLASSES.get(context.optimizer_name.lower(), "AdamW")
        made = f"optimizer = torch.optim.{name}(groups, lr={lr})"
        given = "trainer = Trainer(optimizers=(optimizer, None))  # beside your own"
        return "\n".join([*lines, made, given])
    if not context.optimizer:
        return "\n".join([*lines, f"optimizer = type(optimizer)(groups, lr={lr})"])
    *begin, made = optimizer_snippet(context, rate).split("\n")
    made = made.replace(f"{net}.parameters()", "groups").replace("lr=nan", "lr=lr")
    inner = "    " if begin else ""
    return "\n".join([*begin, *(inner + line for line in lines), made])


def clip_snippet(context: Context, value: float) -> str:
    """Return the line that clips gradients by their norm."""
    if own_loop(context):
        return (
            "# between loss.backward() and optimizer.step()\n"
            f"torch.nn.utils.clip_grad_norm_(model.parameters(), {value:g})"
        )
    if huggingface(context):
        return f"arguments = TrainingArguments(max_grad_norm={value:g})  # beside your own"
    if manual(context):
        return (
            "# in training_step, between self.manual_backward(loss) and optimizer.step()\n"
            f'self.clip_gradients(optimizer, {value:g}, gradient_clip_algorithm="norm")'
        )
    by_norm = ', gradient_clip_algorithm="norm"' if _clips_values(context) else ""
    return f"trainer = Trainer(gradient_clip_val={value:g}{by_norm})"


def _clips_values(context: Context) -> bool:
    return str(context.meta.gradient_clip_algorithm or "norm").lower().endswith("value")


def tighter(context: Context, value: float) -> bool:
    """Tell whether a clip by norm cuts more than the one that is in force already."""
    told = context.meta.gradient_clip_val
    return not told or _clips_values(context) or value < told


def resume_snippet(context: Context, path: str, settings: Mapping[str, Json] | None = None) -> str:
    """Return the lines that go on from a checkpoint.

    `settings`: of the optimizer, as {"lr": 0.03}. A checkpoint brings those of its own run along, and
    they come over what the optimizer was made with: so they are set once it has been read.
    """
    if settings:
        return going_back(context, path, settings)
    quoted = json.dumps(path, ensure_ascii=False)  # a path of Windows has backslashes
    if own_loop(context):
        return f"checkpoint = torch.load({quoted})  # into model and optimizer, before going on"
    if huggingface(context):
        return f"trainer.train(resume_from_checkpoint={quoted})"
    return f"trainer.fit(model, ckpt_path={quoted})"


def stop_snippet(context: Context, loss: str) -> str:
    """Return the lines that stop once a validation loss has turned, and keep its best weights."""
    if own_loop(context):
        return "# stop here, and keep the weights of the lowest validation loss from now on"
    if huggingface(context):
        return (
            "import transformers\n\n"
            'arguments = TrainingArguments(eval_strategy="epoch", save_strategy="epoch", '
            f"load_best_model_at_end=True, metric_for_best_model={loss!r})  # beside your own\n"
            "trainer.add_callback(transformers.EarlyStoppingCallback(early_stopping_patience=3))"
        )
    quoted = json.dumps(loss, ensure_ascii=False)
    return (
        "from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint"
        "  # or from pytorch_lightning.callbacks\n\n"
        f"trainer = Trainer(callbacks=[EarlyStopping({quoted}, patience=3), "
        f"ModelCheckpoint(monitor={quoted})])  # beside your own"
    )


def warm_up_snippet(context: Context, steps: int, rate: float) -> str:
    """Return the lines that let the rate rise linearly over the first steps."""
    if huggingface(context):
        return f"arguments = TrainingArguments(warmup_steps={steps})  # beside your own"
    if is_kept(context):
        # a Trainer counts the steps of all optimizers
        count = "self.trainer.global_step"
        several = len(context.meta.optimizers) > 1
        counted = f"{count} // len(self.trainer.optimizers)" if several else count
        counted = "step" if own_loop(context) else counted
        by_hand = own_loop(context) or manual(context)
        return warm_up_in_place(steps, by_hand=counted if by_hand else "")
    rise = (
        f"torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / {steps}))"
    )
    if own_loop(context):
        return f"scheduler = {rise}\n# after every optimizer.step()\nscheduler.step()"
    made = optimizer_with(context, rate).replace("    return ", "    optimizer = ", 1)
    each = "\n# in training_step, after every optimizer.step()\nself.lr_schedulers().step()"
    return (
        f"{made}\n"
        f"    scheduler = {rise}\n"
        '    return {"optimizer": optimizer, "lr_scheduler": '
        '{"scheduler": scheduler, "interval": "step"}}' + (each if manual(context) else "")
    )


def batch_snippet(context: Context, micros: int, accumulated: int, batch: int) -> str:
    """Return the line that sets a batch: by accumulation where the run accumulates, else the loader's."""
    if huggingface(context):
        given = "gradient_accumulation_steps" if accumulated > 1 else "per_device_train_batch_size"
        value = micros if accumulated > 1 else batch
        return f"arguments = TrainingArguments({given}={value})  # beside your own"
    if own_loop(context) or accumulated <= 1:
        return f"loader = DataLoader(dataset, batch_size={batch}, shuffle=True)"
    return f"trainer = Trainer(accumulate_grad_batches={micros})"


def precision_snippet(context: Context, precision: str) -> str:
    """Return the line that sets the precision."""
    if huggingface(context):
        return "arguments = TrainingArguments(bf16=True, fp16=False)  # beside your own"
    if own_loop(context):
        return (
            'with torch.autocast("cuda", dtype=torch.bfloat16):  # and without the GradScaler\n'
            "    loss = loss_function(model(x), y)"
        )
    return f'trainer = Trainer(precision="{precision}")'
