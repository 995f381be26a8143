"""The finished LoRA files: one with kohya's keys, which most programs load, and one with diffusers' keys.

The header has no timestamps, random values or paths: the same request gives the same bytes. Fields that we cannot fill
truthfully (training times, a commit of sd-scripts, the hash of a single-file base) are left out.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from contracts.recipe import Denoising, LoRA, Recipe
from trainer.engine import files
from trainer.engine.device import DTYPES
from trainer.engine.optimizers import optimizer_entry
from trainer.families import Model
from trainer.messages import AdapterMetadata
from trainer.plan import Plan

_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000
"""Byte range covered by the legacy hash; for a shorter file it is the hash of no bytes."""


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers say about a run. `base` is the sha256 over the base's files."""

    recipe: Recipe
    metadata: AdapterMetadata
    plan: Plan
    step: int
    precision: str
    fingerprint: str
    base: str
    versions: dict[str, str]


def export_kohya(weights: Mapping[str, torch.Tensor], run: RunInfo, model: Model) -> bytes:
    """`lora_unet_….lora_down/up.weight` and `.alpha`, which stays float32: rounded, it would scale wrongly."""
    dtype, lora = DTYPES[run.recipe.save.dtype], run.recipe.adapter
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        module, _, matrix = name.rpartition(".")
        prefix = model.kohya_name(module)
        tensors[f"{prefix}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = weight.to(dtype)
        tensors[f"{prefix}.alpha"] = torch.tensor(float(lora.alpha))
    return files.serialize(tensors, _kohya_header(run, model, tensors))


def export_diffusers(weights: Mapping[str, torch.Tensor], run: RunInfo, model: Model) -> bytes:
    """diffusers' keys, and peft's settings in the header: without them its loader uses the rank as alpha."""
    dtype = DTYPES[run.recipe.save.dtype]
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        module, _, matrix = name.rpartition(".")
        tensors[f"{model.diffusers_name(module)}.{matrix}.weight"] = weight.to(dtype)
    settings = _peft_settings(run.recipe.adapter, model)
    header = {"format": "pt", "lora_adapter_metadata": json.dumps(settings, sort_keys=True)}
    return files.serialize(tensors, header | _lineage(run))


def _peft_settings(lora: LoRA, model: Model) -> dict[str, Any]:
    prefix = model.diffusers_name("")
    settings = {
        "peft_type": "LORA",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "target_modules": sorted(model.target_modules(lora.layers)),
    }
    return {f"{prefix}{name}": value for name, value in settings.items()}


def _kohya_header(run: RunInfo, model: Model, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    family = model.header()
    training = (
        _training_fields(run)
        | _data_fields(run)
        | {name: value for name, value in family.items() if name.startswith("ss_")}
    )
    # Both hashes are computed over the file with the `ss_` keys alone, so that later edits do not change them.
    content = files.serialize(tensors, training)
    window = content[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]
    digest = files.data_digest(content)
    hashes = {"sshs_model_hash": digest, "sshs_legacy_hash": hashlib.sha256(window).hexdigest()[:8]}
    return training | hashes | dict(family) | _modelspec(run, digest) | _lineage(run)


def _training_fields(run: RunInfo) -> dict[str, str]:
    recipe = run.recipe
    return _format_values(
        ss_output_name=run.metadata.adapter_name,
        ss_sd_model_name=run.metadata.base_name,
        ss_network_module="networks.lora",
        ss_network_dim=recipe.adapter.rank,
        ss_network_alpha=recipe.adapter.alpha,
        ss_network_dropout=recipe.adapter.dropout or None,
        ss_network_args={},
        ss_learning_rate=recipe.optimizer.lr,
        ss_unet_lr=recipe.optimizer.lr,
        ss_optimizer=optimizer_entry(recipe.optimizer).header,
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
        **_objective_fields(recipe.objective),
    )


def _objective_fields(objective: Denoising) -> dict[str, Any]:
    return {
        "ss_loss_type": "l2",
        "ss_min_snr_gamma": objective.min_snr_gamma,
        "ss_noise_offset": objective.noise_offset or None,
    }


def _data_fields(run: RunInfo) -> dict[str, str]:
    data, plan, metadata = run.recipe.data, run.plan, run.metadata
    folders = _folders(run)
    return _format_values(
        ss_dataset_dirs={
            name: {"n_repeats": repeats * data.repeats, "img_count": count}
            for name, (repeats, count) in folders.items()
        },
        ss_tag_frequency={name: metadata.tag_frequency.get(repeats, {}) for name, (repeats, _) in folders.items()},
        ss_bucket_info={
            "buckets": {
                str(number): {"resolution": list(bucket.size), "count": len(bucket.members) * data.repeats}
                for number, bucket in enumerate(plan.buckets)
            }
        },
        ss_num_train_images=sum(len(bucket.members) for bucket in plan.buckets) * data.repeats,
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


def _folders(run: RunInfo) -> dict[str, tuple[int, int]]:
    """Repeats and number of the pictures that kohya's readers expect in one folder, by its name.

    There are no folders: images without repeats are in one of the data set's name, others as kohya names it.
    """
    of_pictures = [repeats for bucket in run.plan.buckets for repeats in bucket.pictures.values()]
    counts, data_set, own = Counter(of_pictures), run.metadata.dataset_name, run.recipe.data.repeats
    return {
        data_set if counts.keys() == {1} else f"{repeats * own}_{data_set}": (repeats, count)
        for repeats, count in sorted(counts.items())
    }


def _modelspec(run: RunInfo, digest: str) -> dict[str, str]:
    side = run.recipe.data.resolution
    fields = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "diffusers",
        "modelspec.title": run.metadata.adapter_name,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.trigger_phrase": run.metadata.trigger or "",
        "modelspec.hash_sha256": f"0x{digest}",
    }
    return {name: value for name, value in fields.items() if value}


def _lineage(run: RunInfo) -> dict[str, str]:
    """Where the file comes from: enough to find the job in Loratory and to train again."""
    return {
        "loratory.job": run.metadata.job_id,
        "loratory.dataset": run.metadata.dataset_name,
        "loratory.dataset_version": str(run.metadata.dataset_version),
        "loratory.base": run.base,
        "loratory.fingerprint": run.fingerprint,
        "loratory.recipe": _recipe_without_path(run.recipe, run.metadata.base_name),
        "loratory.software": json.dumps(run.versions, sort_keys=True),
    }


def _recipe_without_path(recipe: Recipe, base_name: str) -> str:
    """The recipe as JSON, the path of a base folder replaced by its name: local paths are not disclosed."""
    tree = msgspec.to_builtins(recipe)
    if "path" in tree["base"]:
        tree["base"]["path"] = base_name
    return json.dumps(tree, sort_keys=True)


def _format_values(**fields: Any) -> dict[str, str]:
    """Header values as kohya's readers expect them: objects as JSON, the rest as `str()`; None is left out."""
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False) if isinstance(value, dict) else str(value)
        for name, value in fields.items()
        if value is not None
    }
