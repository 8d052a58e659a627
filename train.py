"""Train a variational autoencoder: python train.py --dataset fashion-mnist

One loop, on any device and any number of processes that Hugging Face Accelerate supports. It leaves a folder that
`VAE.from_pretrained` loads: weights, configuration, measurements on the test set, pictures and a model card.
"""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":  # Ctrl-C or SIGTERM in the seconds that the imports below take
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("train.py: stopped before training began, nothing was written"))

import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from vae.config import VAEConfig
from vae.data import OWN, Pictures, Share, augment, draw_binary, short_name, spec_of
from vae.evaluate.measure import describe_dataset
from vae.figures import Figures, TrainingRecord, published_command
from vae.files import check_sizes, count_parameters, replace_unprintable
from vae.hub import check_write
from vae.loss import elbo, importance_weighted, mean_error, optimal_log_scale, overall_scale
from vae.model import VAE, VAEOutput
from vae.prior import Flow, StandardNormal
from vae.training.bound import measure_bound
from vae.training.checkpoint import TrainingState, load_checkpoint, stored_config, to_plain
from vae.training.config import TrainConfig, peek, recipe
from vae.training.failures import OUT_OF_MEMORY_ADVICE, is_out_of_memory
from vae.training.finish import evaluate
from vae.training.optim import EMA, make_optimizer, ramp, schedule, set_learning_rate
from vae.training.options import FinishOptions, LossOptions, OptimizerOptions, RunOptions
from vae.training.output import Output, OutputOptions
from vae.training.processes import act_as_one
from vae.training.push import push, push_command
from vae.training.run import Run
from vae.training.setup import (
    LATENT_DIM,
    DataOptions,
    ModelOptions,
    Split,
    fit_shape,
    initial_figures,
    initial_model,
    join_processes,
    load_own,
    load_split,
    make_accelerator,
)
from vae.training.speed import choose_speed, compile_with, name_of
from vae.training.step import GraphedStep
from vae.training.threads import choose_threads

__all__ = [  # for programs that train from Python; the rest is the command's
    "DataOptions",
    "FinishOptions",
    "LossOptions",
    "ModelOptions",
    "OptimizerOptions",
    "OutputOptions",
    "RunOptions",
    "TrainConfig",
    "recipe",
    "train",
]
MAX_GRAD_NORM = 1.0
LR, LR_INIT = 4e-3, 4e-4  # by default: from random weights, and from trained ones (--init), which more would forget
FLOW_LAYERS, FLOW_WIDTH = 8, 128  # of --prior flow


def train(config: TrainConfig, pictures: Any = None) -> None:
    """Train as config says. Raises ValueError if that can't be done, or gives nothing better than random weights.

    pictures: to train on, instead of the dataset that config names: a tensor, an array, a `torch.utils.data.Dataset` or a
        `datasets.Dataset`, see `vae.data.as_pictures`.
    """
    if pictures is not None:
        config = replace(config, data=replace(config.data, dataset=OWN))
    threads = choose_threads()
    saved = load_checkpoint(config, join_processes()) if config.run.resume else None
    options = replace(config.optimizer, **(saved["facts"]["speed"] if saved else {}))
    accelerator = make_accelerator(options.mixed_precision, config.output.tracker)
    accelerator.print(threads)
    set_seed(config.run.seed)  # the same in all processes
    first = VAE.from_pretrained(config.model.init) if config.model.init and not saved else None
    described = VAEConfig.from_dict(saved["facts"]["model"]) if saved else first.config if first else None
    own = load_own(config.data, pictures, described)
    model_config = described if described and saved else describe_model(config, first, own["train"] if own else None)
    folder = config.run.resume or config.output.output or Path("weights", short_name(config.data.dataset))
    if first and first.origin and first.origin.resolve() == folder.resolve():
        raise ValueError(f"--output would overwrite the initial weights: choose a folder other than {first.origin}")
    split = load_split(accelerator, config.data, model_config, config.run.seed, own)

    # The model, perhaps a learned prior, their optimizer, and the average of their weights, which is what is kept.
    vae = initial_model(model_config, first).to(memory_format=torch.channels_last).to(accelerator.device)
    parts = torch.nn.ModuleList([vae])
    flow_size = saved["facts"]["flow"] if saved else (FLOW_LAYERS, FLOW_WIDTH)
    if config.loss.prior == "flow":
        known = first.prior if first and isinstance(first.prior, Flow) else None
        flow = known or Flow(model_config.latent_dim, *flow_size)
        flow_size = len(flow.layers), flow.width
        parts.append(flow.requires_grad_(True).to(accelerator.device))
    ema = EMA(parts)
    act_as_one(vae, accelerator)
    samples = config.loss.samples
    speed = choose_speed(options, config.run, accelerator, vae, split.measured, len(split.train), samples)
    accelerator.print(speed.said)
    if speed.compile:
        compile_with(accelerator)
    model, *log_priors = (accelerator.prepare_model(part) for part in parts)
    optimizer = accelerator.prepare_optimizer(make_optimizer(parts), device_placement=False)  # it is there already
    log_prior = log_priors[0] if log_priors else None
    if log_prior is None and samples > 1:
        log_prior = StandardNormal().log_prob  # an importance weight needs log p(z) of its own sample
    beta = torch.zeros((), device=accelerator.device)
    step: Callable[[Tensor], Tensor] = partial(
        training_step,
        config=config,
        accelerator=accelerator,
        model=model,
        log_prior=log_prior,
        beta=beta,
        optimizer=optimizer,
        parts=parts,
        ema=ema,
    )
    if speed.cuda_graph:
        step = GraphedStep(step, is_required=config.optimizer.cuda_graph == "on")

    peak_lr = config.optimizer.lr or (LR_INIT if config.model.init else LR)
    measure = partial(
        measure_bound,
        calibration=split.measured,
        tilt=config.loss.tilt,
        beta=config.loss.beta,
        samples=samples,
    )
    figures = describe_training(config, accelerator, split, vae)
    facts = {"config": to_plain(config), "model": asdict(model_config), "flow": flow_size, "speed": speed.options}
    state = TrainingState(accelerator, parts, ema, optimizer, facts)
    run = Run(accelerator, config.run, split, Output(folder), figures, measure, state)
    if saved:
        run.resume(saved)
    with run:
        if (repo := config.output.push_to_hub) and accelerator.is_main_process:  # creates it, so not before all else
            check_write(repo, private=config.output.private or None)
        for number, x in enumerate(run.batches(), start=run.step + 1):
            set_learning_rate(optimizer, peak_lr * schedule(run.progress))
            beta.fill_(config.loss.beta * ramp(run.progress, config.loss.kl_warmup))
            ema.set_decay()
            run.after_step(number, step(x))  # log, measure, keep the best, perhaps stop
            if run.finished:
                break
        run.finish()  # measure the kept weights on the test set

    if not accelerator.is_main_process:
        return
    if config.finish.evaluate and not run.is_stopped:
        evaluate(folder, config.finish, config.data)
    if repo and run.is_stopped:
        print(f"not pushed; to push it: {push_command(folder, repo, config.output.private)}")
    elif repo:
        push(folder, repo, config.output.private)


def training_step(
    x: Tensor,
    *,
    config: TrainConfig,
    accelerator: Accelerator,
    model: Callable[..., VAEOutput],
    log_prior: Callable[[Tensor], Tensor] | None,
    beta: Tensor,
    optimizer: torch.optim.Optimizer,
    parts: nn.ModuleList,
    ema: EMA,
) -> Tensor:
    """Learn from pictures x, (B, C, H, W) in [0, 1], and return what `vae.training.failures.PARTS` names, (4,).

    Nothing here waits for the device, or depends on numbers that it has computed: a CUDA graph can hold all of it.
    """
    tilt, samples, likelihood = config.loss.tilt, config.loss.samples, config.loss.likelihood
    share = Share(accelerator.process_index, accelerator.num_processes)
    x = augment(x, config.data.shift, share)
    x = draw_binary(x, share) if config.data.binarize else x

    output = model(x, samples=samples)  # encode, sample, decode
    x = x.repeat(samples, 1, 1, 1)
    error = accelerator.reduce(mean_error(x, output.reconstruction.detach(), likelihood), "mean")
    log_scale = optimal_log_scale(error, likelihood, tilt)  # of the batch over all processes
    bound = elbo(x, output, likelihood, log_scale, beta, log_prior)  # reconstruction - beta * KL, in nats
    loss = -importance_weighted(bound.total, samples).mean() / x[0].numel()  # nats per pixel value

    optimizer.zero_grad()
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(parts.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    ema.update(parts)
    return torch.stack([bound.reconstruction.mean(), bound.kl.mean(), overall_scale(log_scale), norm]).detach()


def describe_model(config: TrainConfig, first: VAE | None, own: Pictures | None = None) -> VAEConfig:
    """Make the config of the model: that of `first`, if there is one, and of own pictures' shape, if there are such.

    Raises ValueError if it is not allowed, or is larger than what is loaded.
    """
    spec = spec_of(config.data.dataset)
    if own:
        spec = replace(spec, channels=own.images.shape[1], image_size=own.images.shape[-1])
    default = VAEConfig(image_size=spec.image_size, channels=spec.channels, latent_dim=LATENT_DIM)
    shape = {name: getattr(config.data, name) for name in ("image_size", "channels")}
    shape |= {name: getattr(config.model, name) for name in ("latent_dim", "width", "depth")}
    credited = [spec.attribution, first.config.attribution if first else ""]
    attribution = ". ".join(dict.fromkeys(filter(None, credited)))
    fitting = fit_shape(shape, default, first)
    described = replace(fitting, likelihood=config.loss.likelihood, attribution=attribution)
    check_sizes(asdict(described))  # or it could not be loaded
    with torch.device("meta"):
        count_parameters(VAE(described))
    return described


def describe_training(config: TrainConfig, accelerator: Accelerator, split: Split, model: VAE) -> Figures:
    """Write down what is known of a training before its first step."""
    dataset = describe_dataset(config.data.dataset)
    earlier = initial_figures(config.model.init, dataset, model.config)
    usual = recipe(config.data.dataset, config.model.init)
    usual.model.init = None  # so that it is named
    record = TrainingRecord(
        command=published_command(config, usual),
        pictures=len(split.train),
        validation_pictures=len(split.held_out),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=name_of(accelerator.device),
        processes=accelerator.num_processes,
        mixed_precision=accelerator.mixed_precision,
        seed=config.run.seed,
        prior=config.loss.prior,
        binarize=config.data.binarize,
        streaming=config.data.streaming or None,
        keep=config.run.keep,
        samples=config.loss.samples,
        steps=0,
        epochs=0.0,
        seconds=0.0,
        init=earlier.training,
        versions={"python": platform.python_version()} | {name: version(name) for name in ("torch", "accelerate")},
    )
    return Figures(dataset=dataset, training=record, history=earlier.history)


def main(arguments: list[str] | None = None) -> None:
    """Train as the arguments say, by default those of the command line; errors end the program with a sentence."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # a KeyboardInterrupt
    replace_unprintable()
    try:
        parse = partial(tyro.cli, TrainConfig, prog="train.py", args=arguments, config=(tyro.conf.OmitArgPrefixes,))
        named = peek(arguments)
        if named.resume:  # what is given again is compared with what the checkpoint says
            config = parse(default=stored_config(Path(named.resume), TrainConfig))
        else:
            config = parse(default=recipe(named.dataset, named.init))
        if config.output.push_only and config.output.push_to_hub:
            push(config.output.push_only, config.output.push_to_hub, config.output.private)
        else:
            train(config)
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(f"train.py: {OUT_OF_MEMORY_ADVICE}; nothing was written")
    except KeyboardInterrupt as error:
        sys.exit(f"train.py: {error}" if error.args else "train.py: stopped before training began, nothing was written")


if __name__ == "__main__":
    main()
