"""What other frameworks call the keys of ``conf/``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection

# Keys of ours, and what they are called elsewhere; the first of them that a command has is meant.
_OTHER_NAMES = (
    ("recipe.total_batch_size data.eval_batch_size batch_size", "batch batch_size bs train_batch_size"),
    ("recipe.total_batch_size", "ims_per_batch samples_per_gpu global_batch_size"),
    ("recipe.max_batch_size_per_device", "per_device_batch_size per_device_train_batch_size micro_batch_size"),
    ("data.eval_batch_size", "val_batch_size test_batch_size per_device_eval_batch_size"),
    ("model.image_size", "imgsz img_size image_size input_size size resolution eval_spatial_size img_scale"),
    ("recipe.learning_rate", "lr lr0 learning_rate base_lr initial_lr"),
    ("recipe.final_learning_rate_share", "lrf min_lr eta_min"),
    ("recipe.weight_decay", "wd decay"),
    ("recipe.betas", "beta momentum beta1 beta2 adam_beta1 adam_beta2"),
    ("recipe.warmup_steps", "warmup warmup_epochs warmup_iters warmup_duration num_warmup_steps"),
    ("recipe.lr_schedule", "scheduler lr_scheduler lr_scheduler_type cos_lr cosine"),
    ("recipe.max_gradient_norm", "clip grad_clip gradient_clip clip_grad clip_max_norm max_grad_norm"),
    ("recipe.ema_decay", "ema use_ema"),
    ("trainer.max_epochs", "epochs epoch num_epochs max_epoch n_epochs num_train_epochs"),
    ("trainer.max_steps", "steps iterations max_iter max_iters num_steps num_train_steps"),
    ("trainer.accumulate_grad_batches", "accumulate grad_accum accum_iter gradient_accumulation_steps"),
    ("trainer.check_val_every_n_epoch", "val_interval eval_interval checkpoint_freq"),
    ("trainer.devices device", "devices gpus num_gpus n_gpus num_devices nproc_per_node"),
    ("trainer.precision half", "amp use_amp fp16 bf16 mixed_precision precision autocast"),
    ("trainer.sync_batchnorm", "sync_bn sync_batch_norm"),
    ("device", "accelerator gpu"),
    ("data.train.images", "train_path train.path train_images train_img_folder train_dir"),
    ("data.train.annotations", "train_annotations train_json train_ann_file"),
    ("data.val.images", "val_path val.path val_images val_img_folder val_dir"),
    ("data.val.annotations", "val_annotations val_json val_ann_file ann_file annotation_file gt"),
    ("data.root source", "path folder data_path data_dir data_root dataset dataset_path dataset_dir dataset_root"),
    ("source", "input inputs image images image_path img imgs video file data"),
    ("data.num_workers", "workers n_workers num_workers dataloader_num_workers"),
    ("model.multiscale", "multi_scale"),
    ("model.pretrained", "pretrained pretrained_backbone backbone_weights"),
    (
        "init_from checkpoint run",
        "weights ckpt checkpoint checkpoint_path ckpt_path load_from finetune model_path",
    ),
    ("freeze", "freeze_backbone frozen frozen_stages freeze_layers freeze_at"),
    ("resume", "resume_from resume_from_checkpoint"),
    ("output run_folder", "output output_dir out out_dir save_dir work_dir project log_dir run_dir"),
    ("name", "exp exp_name experiment_name run_name"),
    ("threshold", "conf conf_thres conf_threshold confidence score_thr score_threshold min_score"),
    ("max_detections", "max_det topk num_detections"),
    ("class_names", "names labels"),
    ("format formats", "type format formats save_txt save_json"),
    ("tile", "tile_size slice_size slice"),
)
_ANSWERS = (
    ("device accelerator gpu", "choose with trainer=cpu, trainer=gpu or trainer.devices"),
    ("imgsz img_size image_size input_size size", "images are resized to the size that the model was trained with"),
    ("optim", "recipe.optimizer, with recipe.learning_rate, recipe.weight_decay and recipe.betas"),
    ("num_classes nc classes class_names names", "the classes are those of the weights or the annotation file"),
    ("iou iou_thres iou_threshold nms nms_threshold", "the model needs no non-maximum suppression"),
    (
        "patience early_stopping",
        "add '+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/AP, mode: max, "
        "patience: 10}'",
    ),
)


def right_key(key: str, keys: Collection[str]) -> str | None:
    """The key of ours that is called ``key`` elsewhere.

    Args:
        key: a dotted key that a command does not have; its last parts count.
        keys: every key that the command has.
    """
    for part in _ends(key):
        for ours, names in _OTHER_NAMES:
            found = [own for own in ours.split() if own in keys]
            if found and part in map(_bare, names.split()):
                return found[0]
    return None


def answer(key: str) -> str | None:
    """What to say of a setting that others have, and we have not."""
    return next((said for names, said in _ANSWERS if _ends(key)[-1] in map(_bare, names.split())), None)


def _ends(key: str) -> list[str]:
    parts = key.split(".")
    return [_bare("".join(parts[first:])) for first in range(len(parts))]


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace(".", "").replace("-", "")
