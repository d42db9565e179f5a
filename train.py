"""Train a GAN: the step, the loop around it, and the files that a run leaves in its folder.

    python train.py --data monet_jpg --epochs 200
    python train.py --model cyclegan --data monet_jpg --photos photo_jpg
    python train.py --resume                       goes on where the run in out/dcgan stopped
"""
import argparse
import math
import signal
import sys
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from data import UserError, command, load, progress, replacing, within, write
from gan import SIZES, CycleGAN, DCGAN

MODELS = {'dcgan': DCGAN, 'cyclegan': CycleGAN}
STEPS = 1500                  # about as many where --epochs is not given
SAVE_EVERY = 50               # seconds

def read_options(arguments):
    """The options of a run, off the command line or a checkpoint: the same checks for both."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__.splitlines()[0])
    add = parser.add_argument_group('model').add_argument
    add('--model', choices=MODELS, default='dcgan', help='default: dcgan')
    add('--size', type=within(int, 32, 4096), help='pixels; default: 64, IDX 32, cyclegan 256')
    add('--channels', type=int, choices=(1, 3), help='default: 3 (RGB), for IDX files 1 (gray)')
    add('--width', type=within(int, 1, 1024), default=64, help='channels at full size; default: 64')
    add('--blocks', type=within(int, 0, 64), default=9, help='residual, of cyclegan; default: 9')
    add('--upsample', choices=('resize', 'transposed'), default='resize', help='default: resize')
    add = parser.add_argument_group('training').add_argument
    add('--data', help='folder of pictures or TFRecords, or IDX file; default: toy paintings')
    add('--photos', help='the same, for cyclegan; default: toy scenes')
    add('--load-size', type=within(int, 32, 4096), help='pixels of the pictures of which --size is '
        'cropped at random; default: --size, for cyclegan 1/8 more')
    add('--epochs', type=within(int, 1), help=f'default: about {STEPS} steps')
    add('--batch', type=within(int, 1), help='pictures a step; default: 16, cyclegan 1')
    add('--lr', type=within(float, 1e-9), default=2e-4, help='of Adam, at first; default: 2e-4')
    add('--seed', type=within(int, 0), default=0, help='of everything random; default: 0')
    add = parser.add_argument_group('run').add_argument
    add('--device', help='default: cuda, mps or cpu, the first that is there')
    add('--out', type=Path, help='folder to write to; default: out/dcgan or out/cyclegan')
    add('--resume', action='store_true', help='go on from last.pt in --out')
    options = parser.parse_args(arguments)
    cyclegan = options.model == 'cyclegan'
    options.batch = options.batch or (1 if cyclegan else 16)
    options.size = options.size or (256 if cyclegan else options.load_size)
    options.channels = options.channels or (3 if cyclegan else None)
    options.load_size = options.load_size or (options.size * 9 // 8 if cyclegan else options.size)
    if options.size and (options.size % 4 if cyclegan else options.size not in SIZES):
        parser.error(f'--size {options.size}: it must be in {SIZES}, for cyclegan a multiple of 4')
    if options.photos and not cyclegan:
        parser.error('--photos: is for --model cyclegan')
    if options.size and options.load_size < options.size:
        parser.error(f'--load-size {options.load_size}: less than --size {options.size}')
    return options

def restore(path, arguments=()):
    """(options, model, checkpoint) of what a run saved; `arguments` come on top of its own.

    UserError if it is no such file, or if its weights do not fit the networks of these options.
    """
    made = ['nothing that can be read']
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        made = [f'--{name}={value}' for name, value in checkpoint['options'].items()]
        options = read_options(made + [*arguments])
        model = MODELS[options.model](**vars(options))
        model.load_state_dict(checkpoint['model'])
    except FileNotFoundError:
        raise UserError(f'{path}: no checkpoint there yet; train.py makes one') from None
    except Exception:
        raise UserError(f'{path}: not a checkpoint that fits this program and its options; it has '
                        f'{" ".join(made)}; leave out other options, or change --out') from None
    return options, model, checkpoint

def pick_device(name):
    """(device, precision): `name`, or the best there is, and bfloat16 where it computes in that.

    On two CPU cores with AVX512-BF16 that makes a step twice as fast.
    """
    try:
        device = torch.device(name or torch.accelerator.current_accelerator(True) or 'cpu')
        torch.zeros(1, device=device)
    except Exception:
        raise UserError(f'--device {name}: not on this machine; try --device cpu') from None
    features = getattr(torch.cpu, 'get_capabilities', dict)()        # which older torch lacks
    fast = (device.type == 'cpu' and features.get('avx512_bf16', False)
            or device.type == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False))
    return device, 'bfloat16' if fast else 'float32'

@lru_cache(maxsize=4)
def shuffled(n, *seed):
    """The order of range(n) in one pass through n pictures."""
    return np.random.default_rng(seed).permutation(n)

def draw_batch(pixels, first, last, size, seed):
    """x (B, C, size, size) in [-1, 1] off pixels (N, H, W, C) uint8, cropped and flipped at random.

    They are numbers first ... last of an endless run of passes, each in an order of its own.
    """
    n, crops = len(pixels), []
    for i in range(first, last):
        top, left = torch.randint(pixels.shape[1] - size + 1, (2,)).tolist()
        picture = pixels[shuffled(n, *seed, i // n)[i % n]]
        crops.append(picture[top:top + size, left:left + size])
    x = torch.stack(crops).permute(0, 3, 1, 2) / 127.5 - 1
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
        # Into this optimizer's weights only: G's loss comes through D, which is not to learn it.
        loss.backward(inputs=optimizer.param_groups[0]['params'])
        optimizer.step()
        figures |= {name: value.detach() for name, value in terms.items()}
    model.update_average()
    return figures

def describe(rows):
    """The last row of the log in words, short enough for a line of 80 columns."""
    row = {name: value for name, value in (rows or [{}])[-1].items()
           if name not in ('step', 'seconds')}
    text = ', '.join(f'{name} {round(value, 2)}' for name, value in row.items())
    return text.replace('images_per_second', 'images/s')

class Run:
    """A run: its options, pictures, model and optimizers, where it stands, and its folder."""

    def __init__(self, arguments):
        options = read_options(arguments)
        self.out = options.out or Path('out', options.model)
        self.state = {'step': 0, 'seconds': 0.0, 'rows': [], 'sums': {}, 'steps': None}
        if options.resume:
            options, self.model, checkpoint = restore(self.out / 'last.pt', arguments)
            self.state = {name: checkpoint[name] for name in self.state}
        elif (self.out / 'last.pt').exists():
            raise UserError(f'{self.out}: holds a run; go on with --resume, or give another --out')
        device, self.state['precision'] = pick_device(options.device)
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16,
                                       enabled=self.state['precision'] == 'bfloat16')
        sources = {'dcgan': ['data'], 'cyclegan': ['photos', 'data']}[options.model]
        self.sets = [torch.from_numpy(load(vars(options)[name], options.load_size, options.channels,
                                           dabs=name == 'data')).to(device) for name in sources]
        n, options.load_size, _, options.channels = self.sets[-1].shape
        options.size = options.size or options.load_size
        if not options.resume:
            torch.manual_seed(options.seed)
            self.model = MODELS[options.model](**vars(options))
        self.model.to(device, memory_format=torch.channels_last)
        self.optimizers = [torch.optim.Adam(nets.parameters(), betas=(0.5, 0.999), fused=True)
                           for nets in (self.model.discriminators, self.model.generators)]
        if options.resume:
            for optimizer, state in zip(self.optimizers, checkpoint['optimizers']):
                optimizer.load_state_dict(state)
        self.steps = math.ceil(n / options.batch)                 # in an epoch
        if self.state['steps'] not in (None, self.steps):
            raise UserError(f'{self.out}: was begun with other pictures or another --batch, with '
                            f'{self.state["steps"]} steps an epoch, not {self.steps}; change --out')
        self.state['steps'] = self.steps
        options.epochs = options.epochs or math.ceil(STEPS / self.steps)
        self.options = options
        self.out.mkdir(parents=True, exist_ok=True)              # or fail before any work is done

    def train(self):
        """The loop: all steps up to the last of --epochs, or until Ctrl-C or SIGTERM."""
        stop, state, options, n = [], self.state, self.options, len(self.sets[-1])
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda number, _: stop.append(number))
        total, saved = options.epochs * self.steps, time.monotonic()
        start = saved - state['seconds']
        for now in progress(range(state['step'], total), lambda: describe(state['rows'])):
            # All that is random in a step follows from the seed and its number: a run that was
            # resumed draws what it would have drawn, and pictures on the way disturb nothing.
            torch.manual_seed(np.random.default_rng((options.seed, now)).integers(2 ** 32))
            for optimizer in self.optimizers:      # constant for the first half, then linear to 0,
                optimizer.param_groups[0]['lr'] = options.lr * min(1, 2 - 2 * now / total)
            # Portions of nearly one size: each picture once an epoch, and no tiny one at its end.
            first, last = now * n // self.steps, (now + 1) * n // self.steps
            batch = [draw_batch(pixels, first, last, options.size, (options.seed, number))
                     for number, pixels in enumerate(self.sets)]
            for name, value in step(self.model, self.optimizers, batch, self.autocast).items():
                state['sums'][name] = state['sums'].get(name, 0) + value
            state['step'], state['seconds'] = now + 1, time.monotonic() - start
            if state['step'] % self.steps == 0:
                self.end_epoch(state['step'] // self.steps)
            if stop or state['step'] == total or time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
            if stop:
                break
        if state['step'] < total:
            print(f'stopped after step {state["step"]} of {total}; go on with: python train.py '
                  f'--resume --out {str(self.out)!r}')
            return
        frames = sorted((self.out / 'samples').glob('*.png'))
        if frames:
            frames = [(frame.name, np.asarray(Image.open(frame))) for frame in frames]
            write(frames, self.out / 'progress.gif')

    def end_epoch(self, epoch):
        """Write log.csv with a row more and, about 20 times in a run, loss.png and the preview."""
        rows, sums = self.state['rows'], self.state['sums']
        lap = self.state['seconds'] - (rows[-1]['seconds'] if rows else 0)
        rows.append({'epoch': epoch, 'step': self.state['step'], 'seconds': self.state['seconds'],
                     'images_per_second': len(self.sets[-1]) / lap,
                     **{name: value.item() / self.steps for name, value in sums.items()}})
        sums.clear()
        with replacing(self.out / 'log.csv') as temporary:
            temporary.write_text('\n'.join(','.join(map(str, row)) for row in
                                           [rows[0], *(row.values() for row in rows)]) + '\n')
        if not sys.stderr.isatty():
            print(describe(rows), flush=True)
        if epoch % math.ceil(self.options.epochs / 20) == 0 or epoch == self.options.epochs:
            write([('loss', draw_losses(rows))], self.out / 'loss.png')
            side = self.options.load_size // 4 * 4
            self.model.settle()
            images, columns = self.model.preview(*[
                pixels[:min(4, *map(len, self.sets)), :side, :side].permute(0, 3, 1, 2) / 127.5 - 1
                for pixels in self.sets])
            write(enumerate(to_uint8(images)), self.out / f'samples/{epoch:04d}.png', columns)

    def save(self):
        """Write last.pt: all that a run needs to go on as if it had never stopped."""
        options = {name.replace('_', '-'): value for name, value in vars(self.options).items()
                   if value is not None and name not in ('device', 'out', 'resume')}
        checkpoint = {**self.state, 'options': options, 'model': self.model.state_dict(),
                      'optimizers': [optimizer.state_dict() for optimizer in self.optimizers]}
        with replacing(self.out / 'last.pt') as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:                # what torch makes of an OSError
                raise UserError(f'{self.out}/last.pt: not saved, the last one is kept; is the disk '
                                f'full? ({error!s:.60})') from None

def draw_losses(rows):
    """Curves of the figures of log.csv over the epochs, (H, W, 3) uint8; D_... below the losses."""
    sheet = Image.new('RGB', (880, 640), 'white')
    draw, last = ImageDraw.Draw(sheet), rows[-1]['epoch']
    for bottom, prefix in ((280, 'loss'), (595, 'D_')):
        names = [name for name in rows[0] if name.startswith(prefix)]
        high = max([row[name] for row in rows for name in names], default=1)
        draw.text((60, bottom - 270), f'{prefix}... over epochs', fill='black')
        for part in np.linspace(0, 1, 5):
            draw.line((60, bottom - 250 * part, 740, bottom - 250 * part), fill='lightgray')
            draw.text((15, bottom - 250 * part - 6), f'{high * part:.2f}', fill='black')
            draw.text((52 + 680 * part, bottom + 5), f'{last * part:.0f}', fill='black')
        for number, name in enumerate(names):
            colour = f'hsl({70 * number}, 90%, 40%)'
            draw.line([(60 + 680 * row['epoch'] / last, bottom - 250 * row[name] / high)
                       for row in rows], fill=colour, width=2)
            draw.text((750, bottom - 250 + 18 * number), name, fill=colour)
    return np.asarray(sheet)

def main():
    """Train as the command line says."""
    run = Run(sys.argv[1:])
    G, D = (sum(weights.numel() for weights in nets.parameters()) / 1e6
            for nets in (run.model.generators, run.model.discriminators))
    print(' and '.join(str(len(pixels)) for pixels in run.sets), f'pictures; million parameters: '
          f'generators {G:.1f}, discriminators {D:.1f}; {run.state["precision"]}; '
          + ', '.join(f'{name} {value}' for name, value in vars(run.options).items()), flush=True)
    run.train()

if __name__ == '__main__':
    command(main)
