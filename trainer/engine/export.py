"""The finished files: kohya's keys for most programs, diffusers' own beside them, with a truthful header.

The header holds no clock, no chance and no path: the same order gives the same bytes. What cannot be said truthfully
(training times, a commit of sd-scripts, the hash of a single-file base) is left out rather than made up.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from contracts.recipe import Adafactor, AdamW, Denoising, LoRA, Recipe
from trainer.engine import files
from trainer.engine.machine import DTYPES
from trainer.families import Model
from trainer.messages import Facts
from trainer.plan import Plan

_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000
"""The window of the oldest of the hashes; a file that ends before it has the hash of nothing."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run when its files are written."""

    recipe: Recipe
    facts: Facts
    plan: Plan
    step: int
    precision: str
    fingerprint: str
    base: str
    versions: dict[str, str]


def kohya(weights: Mapping[str, torch.Tensor], run: Run, model: Model) -> bytes:
    """`lora_unet_….lora_down/up.weight` and `.alpha`, which stays float32: rounded, it would scale wrongly."""
    dtype, lora = DTYPES[run.recipe.save.dtype], run.recipe.adapter
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        module, _, factor = name.rpartition(".")
        place = model.kohya_name(module)
        tensors[f"{place}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight"] = weight.to(dtype)
        tensors[f"{place}.alpha"] = torch.tensor(float(lora.alpha))
    return files.packed(tensors, _header(run, model, tensors))


def diffusers(weights: Mapping[str, torch.Tensor], run: Run, model: Model) -> bytes:
    """diffusers' keys, and the adapter's settings in the header: without them its loader takes alpha for the rank."""
    dtype = DTYPES[run.recipe.save.dtype]
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        module, _, factor = name.rpartition(".")
        tensors[f"{model.diffusers_name(module)}.{factor}.weight"] = weight.to(dtype)
    settings = _peft_settings(run.recipe.adapter, model)
    about = {"format": "pt", "lora_adapter_metadata": json.dumps(settings, sort_keys=True)}
    return files.packed(tensors, about | _lineage(run))


def _peft_settings(lora: LoRA, model: Model) -> dict[str, Any]:
    prefix = model.diffusers_name("")
    said = {
        "peft_type": "LORA",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "target_modules": sorted(model.targets(lora.layers)),
    }
    return {f"{prefix}{name}": value for name, value in said.items()}


def _header(run: Run, model: Model, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    family = model.header()
    training = (
        _about_training(run)
        | _about_data(run)
        | {name: value for name, value in family.items() if name.startswith("ss_")}
    )
    # Both hashes are taken over the file as it would be with the `ss_` keys alone, so later edits keep them.
    bare = files.packed(tensors, training)
    window = bare[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]
    digest = files.data_digest(bare)
    hashes = {"sshs_model_hash": digest, "sshs_legacy_hash": hashlib.sha256(window).hexdigest()[:8]}
    return training | hashes | dict(family) | _modelspec(run, digest) | _lineage(run)


def _about_training(run: Run) -> dict[str, str]:
    recipe = run.recipe
    return _said(
        ss_output_name=run.facts.adapter_name,
        ss_sd_model_name=run.facts.base_name,
        ss_network_module="networks.lora",
        ss_network_dim=recipe.adapter.rank,
        ss_network_alpha=recipe.adapter.alpha,
        ss_network_dropout=recipe.adapter.dropout or None,
        ss_network_args={},
        ss_learning_rate=recipe.optimizer.lr,
        ss_unet_lr=recipe.optimizer.lr,
        ss_optimizer=_optimizer(recipe),
        ss_lr_scheduler=msgspec.to_builtins(recipe.schedule)["type"],
        ss_lr_warmup_steps=recipe.schedule.warmup,
        ss_max_grad_norm=recipe.max_grad_norm,
        ss_gradient_accumulation_steps=recipe.data.accumulate,
        ss_gradient_checkpointing=recipe.gradient_checkpointing,
        ss_mixed_precision={"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[run.precision],
        ss_seed=recipe.seed,
        ss_steps=run.step,
        ss_max_train_steps=run.plan.steps,
        ss_epoch=run.plan.epoch_of(run.step),
        ss_num_epochs=run.plan.epochs,
        **_about_objective(recipe.objective),
    )


def _optimizer(recipe: Recipe) -> str:
    match recipe.optimizer:
        case AdamW(beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay):
            return f"torch.optim.adamw.AdamW(betas=({beta1}, {beta2}),eps={eps},weight_decay={decay})"
        case Adafactor(weight_decay=decay):
            return f"torch.optim._adafactor.Adafactor(weight_decay={decay})"


def _about_objective(objective: Denoising) -> dict[str, Any]:
    return {
        "ss_loss_type": "l2",
        "ss_min_snr_gamma": objective.min_snr_gamma,
        "ss_noise_offset": objective.noise_offset or None,
    }


def _about_data(run: Run) -> dict[str, str]:
    data, plan, facts = run.recipe.data, run.plan, run.facts
    pictures = sum(len(bucket.members) for bucket in plan.buckets)
    # Where a reader expects a folder's name stands the data set's: there is no such folder.
    return _said(
        ss_dataset_dirs={facts.dataset_name: {"n_repeats": data.repeats, "img_count": pictures}},
        ss_tag_frequency={facts.dataset_name: facts.tag_frequency},
        ss_bucket_info={
            "buckets": {
                str(number): {"resolution": list(bucket.size), "count": len(bucket.members) * data.repeats}
                for number, bucket in enumerate(plan.buckets)
            }
        },
        ss_num_train_images=pictures * data.repeats,
        ss_num_reg_images=0,
        ss_num_batches_per_epoch=plan.batches_per_epoch,
        ss_resolution=f"({data.resolution}, {data.resolution})",
        ss_enable_bucket=True,
        ss_bucket_no_upscale=False,
        ss_batch_size_per_device=data.batch_size,
        ss_total_batch_size=data.batch_size * data.accumulate,
        ss_shuffle_caption=data.shuffle_tags,
        ss_keep_tokens=data.keep_tags if data.shuffle_tags else 0,
        ss_caption_dropout_rate=data.caption_dropout,
        ss_cache_latents=True,
        ss_color_aug=False,
        ss_flip_aug=False,
        ss_random_crop=False,
    )


def _modelspec(run: Run, digest: str) -> dict[str, str]:
    side = run.recipe.data.resolution
    said = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "diffusers",
        "modelspec.title": run.facts.adapter_name,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.trigger_phrase": run.facts.trigger or "",
        "modelspec.hash_sha256": f"0x{digest}",
    }
    return {name: value for name, value in said.items() if value}


def _lineage(run: Run) -> dict[str, str]:
    """Where it comes from, enough to ask Loratory about it and to train it again."""
    return {
        "loratory.job": run.facts.job_id,
        "loratory.dataset": run.facts.dataset_name,
        "loratory.dataset_version": str(run.facts.dataset_version),
        "loratory.base": run.base,
        "loratory.fingerprint": run.fingerprint,
        "loratory.recipe": _recipe_without_path(run.recipe, run.facts.base_name),
        "loratory.software": json.dumps(run.versions, sort_keys=True),
    }


def _recipe_without_path(recipe: Recipe, base_name: str) -> str:
    """The recipe as JSON; a base folder by its name, because where it lies on a machine is nobody's business."""
    tree = msgspec.to_builtins(recipe)
    if "path" in tree["base"]:
        tree["base"]["path"] = base_name
    return json.dumps(tree, sort_keys=True)


def _said(**facts: Any) -> dict[str, str]:
    """Header values are strings: objects as JSON, the rest as Python writes it, as kohya's readers expect; no None."""
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False) if isinstance(value, dict) else str(value)
        for name, value in facts.items()
        if value is not None
    }
