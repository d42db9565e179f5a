"""Train a GAN: the step, the loop around it, and the files that a run leaves in its folder.

    python train.py --data monet_jpg --epochs 200
    python train.py --resume                       goes on where the run in out/dcgan stopped
"""
import copy
import csv
import math
import shlex
import signal
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from data import Parser, UserError, command, load, progress, replacing, within, write
from gan import DCGAN, SIZES, UPSAMPLE

MODELS = {'dcgan': DCGAN}
STEPS = 3000                  # about as many where --epochs is not given
SAVE_EVERY = 50               # seconds
COLOURS = ('crimson', 'royalblue', 'seagreen', 'darkorange', 'purple', 'black')


def parser():
    """The options. The settings in a checkpoint go through it too, and so through its checks."""
    options = Parser(description=__doc__.splitlines()[0])
    add = options.add_argument_group('model').add_argument
    add('--model', choices=MODELS, default='dcgan', help='default: dcgan')
    add('--size', type=int, choices=SIZES, help='pixels; default: 64, for IDX files 32')
    add('--channels', type=int, choices=(1, 3), help='default: 3 (RGB), for IDX files 1 (gray)')
    add('--width', type=within(int, 1, 1024), default=64, help='channels at half size; default: 64')
    add('--upsample', choices=UPSAMPLE, default='resize', help='default: resize')
    add = options.add_argument_group('training').add_argument
    add('--data', help='folder of pictures or TFRecords, IDX file; default: toy paintings')
    add('--epochs', type=within(int, 1), help=f'default: about {STEPS} steps')
    add('--batch', type=within(int, 1), default=16, help='pictures a step; default: 16')
    add('--lr', type=within(float, 1e-9), default=2e-4, help='of Adam, at first; default: 2e-4')
    add('--seed', type=within(int, 0), default=0, help='of everything random; default: 0')
    add = options.add_argument_group('run').add_argument
    add('--device', help='default: cuda, mps or cpu, the first that is there')
    add('--out', type=Path, help='folder to write to; default: out/dcgan')
    add('--resume', action='store_true', help='go on from last.pt in --out')
    return options


def build(settings):
    """The model of these settings, with fresh weights."""
    model = MODELS[settings.model]
    return model(**{name: getattr(settings, name) for name in model.OPTIONS})


def restore(path):
    """(settings, model, checkpoint) of the file that a run saved; UserError if it is not one."""
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        settings = parser().parse_args(
            [f'--{name}={value}' for name, value in checkpoint['settings'].items()])
        model = build(settings)
        model.load_state_dict(checkpoint['model'])
    except FileNotFoundError:
        raise UserError(f'{path}: no checkpoint there yet; python train.py makes one') from None
    except Exception as error:
        raise UserError(f'{path}: not a checkpoint of this program ({type(error).__name__}); '
                        'name one, or train with another --out') from None
    return settings, model, checkpoint


def pick_device(name):
    """The torch device called `name`, or the best there is; UserError if there is none such."""
    try:
        device = torch.device(name or torch.accelerator.current_accelerator(True) or 'cpu')
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f'--device {name}: not on this machine; try --device cpu') from None
    return device


def bfloat16(device):
    """An autocast to bfloat16 where the device computes in it, for twice the speed, else to none."""
    fast = {'cuda': torch.cuda.is_available() and torch.cuda.is_bf16_supported(False),
            'cpu': torch.cpu.get_capabilities().get('avx512_bf16', False)}
    return torch.autocast(device.type, torch.bfloat16, enabled=fast.get(device.type, False))


@lru_cache(maxsize=2)
def shuffled(n, seed, times):
    """The order of range(n) in one pass through the pictures, after so many others."""
    return np.random.default_rng((seed, times)).permutation(n)


def draw_batch(pixels, first, last, seed):
    """x (B, C, H, W) in [-1, 1] from pixels (N, H, W, C) uint8, flipped at random.

    They are numbers first ... last of an endless run of passes, each in an order of its own.
    """
    n = len(pixels)
    chosen = np.array([shuffled(n, seed, i // n)[i % n] for i in range(first, last)])
    x = pixels[torch.from_numpy(chosen)].permute(0, 3, 1, 2) / 127.5 - 1
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x, x.flip(3))


def to_uint8(x):
    """Tensor (B, C, H, W) in [-1, 1] -> array (B, H, W, C) uint8."""
    return ((x + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def step(model, optimizers, batch, autocast):
    """One update of D, then one of G, for `batch`, a list of tensors (B, C, H, W) in [-1, 1].

    Returns the figures to log as tensors: to read them here would make a GPU wait at every step.
    """
    figures = {}
    with autocast:
        fake = model.generate(batch)
    for loss_of, optimizer in zip((model.loss_D, model.loss_G), optimizers):
        with autocast:
            loss, terms = loss_of(batch, fake)
        optimizer.zero_grad()
        # Into this optimizer's weights only: G's loss comes through D, but is not there to change it.
        loss.backward(inputs=optimizer.param_groups[0]['params'])
        optimizer.step()
        figures |= {name: value.detach() for name, value in terms.items()}
    model.update_average()
    return figures


class Run:
    """A run: its settings, pictures, model and optimizers, where it stands, and its folder."""

    def __init__(self, args):
        self.out = args.out or Path('out') / args.model
        self.state = {'step': 0, 'seconds': 0.0, 'rows': [], 'sums': {}}
        if args.resume:
            settings, self.model, checkpoint = restore(self.out / 'last.pt')
            self.state = {name: checkpoint[name] for name in self.state}
            args = parser().parse_args(namespace=copy.copy(settings))
            for name in ('model', *self.model.OPTIONS):
                if getattr(args, name) != getattr(settings, name):
                    raise UserError(f'--{name} {getattr(args, name)}: the run in {self.out} has '
                                    f'{getattr(settings, name)}; leave it out, or change --out')
        elif (self.out / 'last.pt').exists():
            raise UserError(f'{self.out}: holds a run; add --resume, or give another --out')
        device = pick_device(args.device)
        pixels = load(args.data, args.size, args.channels)
        self.pixels = torch.from_numpy(pixels).to(device)
        _, args.size, _, args.channels = pixels.shape
        if not args.resume:
            torch.manual_seed(args.seed)
            self.model = build(args)
        self.model.to(device, memory_format=torch.channels_last)
        self.optimizers = [torch.optim.Adam(nets.parameters(), lr=args.lr, betas=(0.5, 0.999), fused=True)
                           for nets in (self.model.discriminators, self.model.generators)]
        if args.resume:
            for optimizer, state in zip(self.optimizers, checkpoint['optimizers']):
                optimizer.load_state_dict(state)
        self.autocast = bfloat16(device)
        self.steps = math.ceil(len(pixels) / args.batch)            # in an epoch
        args.epochs = args.epochs or math.ceil(STEPS / self.steps)
        self.args = args

    def train(self):
        """The loop: all steps up to the last of --epochs, or until Ctrl-C or SIGTERM."""
        stop = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.set())
        n, state, args, saved = len(self.pixels), self.state, self.args, time.monotonic()
        total, clock = args.epochs * self.steps, saved
        for now in progress(range(state["step"], total), self.describe):
            # All that is random in a step follows from the seed and its number: a run that was
            # resumed draws what it would have drawn, and pictures on the way disturb nothing.
            torch.manual_seed(np.random.SeedSequence((args.seed, now)).generate_state(1)[0].item())
            for optimizer in self.optimizers:       # constant for the first half, then down to 0
                optimizer.param_groups[0]['lr'] = args.lr * min(1, 2 - 2 * now / total)
            # Portions of nearly one size: each picture once an epoch, and no tiny one at its end.
            x = draw_batch(self.pixels, now * n // self.steps, (now + 1) * n // self.steps, args.seed)
            for name, value in step(self.model, self.optimizers, [x], self.autocast).items():
                state['sums'][name] = state['sums'].get(name, 0) + value
            state['step'], before, clock = now + 1, clock, time.monotonic()
            state['seconds'] += clock - before
            if state['step'] % self.steps == 0:
                self.end_epoch(state['step'] // self.steps)
            if stop.is_set() or state['step'] == total or clock - saved > SAVE_EVERY:
                self.save()
                saved = clock
            if stop.is_set():
                print(f'stopped at step {now + 1} of {total}; go on with: python train.py --resume '
                      f'--out {shlex.quote(str(self.out))}')
                return

    def describe(self):
        """The last row of the log, in words."""
        return ', '.join(f'{name} {value:.4g}' for name, value in ([{}] + self.state['rows'])[-1].items())
    
    def end_epoch(self, epoch):
        """Write log.csv with one row more and, 20 times in a run, loss.png and the preview."""
        rows, sums = self.state['rows'], self.state['sums']
        lap = self.state['seconds'] - (rows[-1]['seconds'] if rows else 0)
        rows.append({'epoch': epoch, 'step': self.state['step'], 'seconds': self.state['seconds'],
                     'images_per_second': len(self.pixels) / lap,
                     **{name: value.item() / self.steps for name, value in sums.items()}})
        sums.clear()
        with replacing(self.out / 'log.csv') as temporary, open(temporary, 'w', newline='') as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        if not sys.stderr.isatty():
            print(self.describe(), flush=True)
        if epoch % math.ceil(self.args.epochs / 20) == 0 or epoch == self.args.epochs:
            draw_losses(rows, self.out / 'loss.png')
            self.preview(epoch)

    def preview(self, epoch):
        """Write the pictures that are painted from the same z, or the same photos, at each call."""
        images, columns = self.model.preview()
        write(((None, image) for image in to_uint8(images)), self.out / f'samples/{epoch:04d}.png', columns)

    def save(self):
        """Write last.pt: all that a run needs to go on as if it had never stopped."""
        settings = {name: value for name, value in vars(self.args).items()
                    if value is not None and name not in ('device', 'out', 'resume')}
        with replacing(self.out / 'last.pt') as temporary:
            torch.save({**self.state, 'settings': settings, 'model': self.model.state_dict(),
                        'optimizers': [optimizer.state_dict() for optimizer in self.optimizers]},
                       temporary)


def draw_losses(rows, path):
    """Draw the figures of log.csv over the epochs: the losses above, D's opinions below."""
    sheet = Image.new('RGB', (880, 640), 'white')
    draw = ImageDraw.Draw(sheet)
    last = rows[-1]['epoch']
    for top, prefix, title in ((30, 'loss', 'loss'), (345, 'D_', 'mean of sigmoid(D)')):
        names = [name for name in rows[0] if name.startswith(prefix)]
        high = max(row[name] for row in rows for name in names)
        draw.text((60, top - 20), f'{title}, over epochs', fill='black')
        for quarter in range(5):
            x, y = 60 + 170 * quarter, top + 250 - 62.5 * quarter
            draw.line((60, y, 740, y), fill='lightgray')
            draw.text((15, y - 6), f'{high * quarter / 4:.2f}', fill='black')
            draw.text((x - 8, top + 255), f'{last * quarter / 4:.0f}', fill='black')
        for number, (name, colour) in enumerate(zip(names, COLOURS)):
            draw.line([(60 + 680 * row['epoch'] / last, top + 250 * (1 - row[name] / high))
                       for row in rows], fill=colour, width=2)
            draw.text((750, top + 18 * number), name, fill=colour)
    with replacing(path) as temporary:
        sheet.save(temporary)


def main():
    """Train as the command line says."""
    run = Run(parser().parse_args())
    run.train()


if __name__ == '__main__':
    command(main)
