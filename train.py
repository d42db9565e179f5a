"""Train a GAN: the step, the loop around it, and the files that a run leaves in its folder.

    python train.py --data monet_jpg --epochs 200
    python train.py --model cyclegan --data monet_jpg --photos photo_jpg
    python train.py --resume                       goes on where the run in out/dcgan stopped"""
import argparse
import io
import math
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from data import fail, load, progress, replacing, write
from gan import DCGAN, CycleGAN

MODELS = {'dcgan': DCGAN, 'cyclegan': CycleGAN}
STEPS = 1800                          # of a run without --epochs, rounded up to whole epochs
SAVE_EVERY = 50                       # seconds

def within(kind, low, high=1e9):
    """A type for argparse: numbers of the kind, int or float, from low to high."""
    def number(text):
        """The number that the text is."""
        if low <= kind(text) <= high:
            return kind(text)
        raise argparse.ArgumentTypeError(f'{text} is not from {low} to {high:g}')
    return number

def read_options(arguments):
    """The options of a run, off the command line or a checkpoint: the same checks for both."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__.splitlines()[0])
    add = parser.add_argument_group('model').add_argument
    add('--model', choices=MODELS, default='dcgan', help='default: dcgan')
    add('--size', type=within(int, 32, 4096), help='pixels; default: 64, IDX 32, cyclegan 256')
    add('--width', type=within(int, 1, 1024), default=64, help='fewest channels; default: 64')
    add('--blocks', type=within(int, 0, 64), default=9, help='residual, of cyclegan; default: 9')
    add('--upsample', choices=('resize', 'transposed'), default='resize', help='default: resize')
    add('--channels', type=int, choices=(1, 3), help='default: 3 (RGB), for IDX files 1 (gray)')
    add = parser.add_argument_group('training').add_argument
    add('--data', help='folder of pictures or TFRecords, or IDX file; default: toy paintings')
    add('--photos', help='the same, for cyclegan; default: toy scenes')
    add('--load-size', type=within(int, 32, 4096), help='pixels of the pictures of which --size is '
        'cropped at random; default: 1/8 more, but none for toys and IDX without --size')
    add('--epochs', type=within(int, 1), help=f'default: {STEPS} steps or a few more')
    add('--batch', type=within(int, 1), help='pictures a step; default: 16, toys 8, cyclegan 1')
    add('--lr', type=within(float, 1e-9), default=2e-4, help='of Adam, at first; default: 2e-4')
    add('--seed', type=within(int, 0), default=0, help='of everything random; default: 0')
    add = parser.add_argument_group('run').add_argument
    add('--device', help='default: cuda, mps or cpu, the first that is there')
    add('--precision', choices=('bfloat16', 'float32'), help='default: bfloat16 where it is fast')
    add('--out', type=Path, help='folder to write to; default: out/dcgan or out/cyclegan')
    add('--resume', action='store_true', help='go on from last.pt in --out')
    options = parser.parse_args(arguments)
    options.out = options.out or Path('out', options.model)
    cyclegan, sizes = options.model == 'cyclegan', MODELS[options.model].SIZES
    options.batch = options.batch or (1 if cyclegan else 16 if options.data else 8)
    options.channels = options.channels or (3 if cyclegan else None)
    options.size = options.size or (256 if cyclegan else options.load_size)
    options.load_size = options.load_size or options.size and options.size * 9 // 8
    if options.size and (options.size not in sizes or options.size > options.load_size):
        parser.error(f'--size {options.size}: at most --load-size, and of {[*sizes][:4]} ...')
    if options.photos and not cyclegan:
        parser.error('--photos: is for --model cyclegan')
    try:
        best = torch.accelerator.current_accelerator(True)                     # None: the CPU
        options.device = torch.zeros(1, device=options.device or best).device
    except Exception:
        parser.error(f'--device {options.device}: not on this machine; try --device cpu')
    return options

def restore(path, arguments=()):
    """(options, model, checkpoint) that a run saved, `arguments` overriding its own; or fail()."""
    if torch.__version__ < '2.10':                         # torch.load() had holes before
        fail(f'torch {torch.__version__}: too old to read checkpoints safely; pip install -U torch')
    if not path.exists():
        fail(f'{path}: no checkpoint there yet; train.py makes one')
    made = ['nothing that can be read']
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        made = checkpoint['options']
        options = read_options([*made, *arguments, f'--out={path.parent}'])
        with torch.device('meta'):       # networks without memory; they take over the checkpoint's
            model = MODELS[options.model](**vars(options))
        model.load_state_dict(checkpoint['model'], assign=True)
        return options, model, checkpoint
    except Exception as error:
        fail(f'{path}: does not fit this program or these options ({type(error).__name__}); has '
             f'{" ".join(made)}; leave out other options, or change --out')

def draw_batch(pixels, first, last, size, seed):
    """x (B, C, size, size) in [-1, 1] from pixels (N, H, W, C) uint8: a crop for all, random flips;
    numbers first ... last - 1 of an endless run of passes, each in an order of its own."""
    n = len(pixels)
    order = np.concatenate([np.random.default_rng((*seed, number)).permutation(n)
                            for number in range(first // n, (last - 1) // n + 1)])
    top, left = torch.randint(pixels.shape[1] - size + 1, (2,)).tolist()
    x = pixels[order[first % n:][:last - first], top:top + size, left:left + size]
    x = x.permute(0, 3, 1, 2) / 127.5 - 1
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x, x.flip(3))

def to_uint8(x):
    """Tensor (B, C, H, W) in [-1, 1] -> array (B, H, W, C) uint8."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

def step(model, optimizers, batch, autocast, decay):
    """Update D, then G, then the average, by `batch`, a list of tensors (B, C, H, W) in [-1, 1].
    Returns the values to log as tensors: to read them here would make a GPU wait at every step."""
    values, losses = {}, model.losses(*batch)
    for optimizer in optimizers:
        with autocast:
            loss, terms = next(losses)
        optimizer.zero_grad()
        # Into this optimizer's weights only: G's loss comes through D, which is not to learn it.
        loss.backward(inputs=optimizer.param_groups[0]['params'])
        optimizer.step()
        values |= {name: value.detach() for name, value in terms.items()}
    for average, current in zip(model.average.parameters(), model.generators.parameters()):
        average.lerp_(current.detach(), 1 - decay)        # decay average + (1 - decay) current
    return values

def save(options, model, optimizers, state):
    """Write last.pt: all that a run needs to go on as if it had never stopped."""
    state['options'] = [f'--{key.replace("_", "-")}={value}' for key, value in vars(options).items()
                        if value is not None and key not in ('device', 'out', 'resume')]
    state |= {'model': model.state_dict(), 'optimizers': [one.state_dict() for one in optimizers]}
    buffer = io.BytesIO()            # torch.save() to a full disk would raise no OSError
    torch.save(state, buffer)
    with replacing(options.out / 'last.pt') as temporary:
        temporary.write_bytes(buffer.getbuffer())

def draw_losses(rows):
    """Curves of the values in log.csv over the epochs, (H, W, 3) uint8."""
    sheet = Image.new('RGB', (880, 400), 'white')
    draw, names = ImageDraw.Draw(sheet), list(rows[0])[4:]
    high = max(row[name] for row in rows for name in names)
    for part in (0, 0.25, 0.5, 0.75, 1):
        draw.text((15, 345 - 330 * part), f'{high * part:.2f}', 'black')
        draw.text((40 + 680 * part, 370), f'epoch {len(rows) * part:g}', 'black')
    for number, name in enumerate(names):
        colour = f'hsl({360 * number // len(names)}, 90%, 40%)'
        draw.line([(60 + 680 * row['epoch'] / len(rows), 350 - 330 * row[name] / high)
                   for row in (rows[0] | {'epoch': 0}, *rows)], colour, width=2)
        draw.text((750, 20 + 18 * number), name, colour)
    return np.asarray(sheet)

def end_epoch(options, sets, model, state):
    """Write log.csv with one more row and, 10 to 20 times in a long run, a preview and loss.png."""
    rows, epoch, seconds = state['rows'], len(state['rows']) + 1, state['seconds']
    speed = len(sets[-1]) / (seconds - (rows[-1]['seconds'] if rows else 0))
    row = {'epoch': epoch, 'step': state['step'], 'seconds': seconds, 'images_per_second': speed}
    row |= {name: value.item() for name, value in state['sums'].items()}
    rows.append(row)
    state |= {'sums': {}, 'line': ', '.join(f'{name} {row[name]:.4g}' for name in row)}
    with replacing(options.out / 'log.csv') as temporary:
        lines = [row, *map(dict.values, rows)]         # its keys, then all values
        temporary.write_text('\n'.join(','.join(map(str, line)) for line in lines) + '\n')
    if not sys.stderr.isatty():
        print(state['line'], flush=True)
    if epoch % math.ceil(options.epochs / 20) == 0 or epoch == options.epochs:
        x = [pixels[np.arange(4) % len(pixels)].permute(0, 3, 1, 2) / 127.5 - 1 for pixels in sets]
        images, columns = model.preview(*x)
        write(enumerate(to_uint8(images)), options.out / f'samples/{epoch:04d}.png', columns)
        write([('', draw_losses(rows))], options.out / 'loss.png')
    if epoch == options.epochs:
        frames = sorted(options.out.glob('samples/*.png'))
        write([('', np.asarray(Image.open(f))) for f in frames], options.out / 'progress.gif')

def train(options, sets, model, optimizers, autocast, state):
    """The loop: all steps up to the last of --epochs, or until Ctrl-C or SIGTERM."""
    stop, n, steps, saved = [], len(sets[-1]), state['steps'], state['seconds']
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stop.append(number))
    start, total = time.monotonic() - saved, steps * options.epochs
    for now in progress(range(state['step'], total), lambda: state.get('line', '')):
        # All that is random in a step follows from the seed and its number: a run that was
        # resumed draws what it would have drawn, and pictures on the way disturb nothing.
        torch.manual_seed(np.random.default_rng((options.seed, now)).integers(2 ** 32))
        for optimizer in optimizers:             # constant for the first half, then linear to 0
            optimizer.param_groups[0]['lr'] = options.lr * min(1, 2 - 2 * now / total)
        # Portions of nearly one size: each picture once an epoch, and no tiny one at its end.
        first, last = now * n // steps, (now + 1) * n // steps
        batch = [draw_batch(pixels, first, last, options.size, (options.seed, number))
                 for number, pixels in enumerate(sets)]
        # Short at first, or the weights at random of the beginning would long stay in the average.
        decay = min(model.DECAY, (now + 1) / (now + 10))
        for name, value in step(model, optimizers, batch, autocast, decay).items():
            state['sums'][name] = state['sums'].get(name, 0) + value / steps
        state |= {'step': now + 1, 'seconds': time.monotonic() - start}
        due = stop or now + 1 == total or state['seconds'] > saved + SAVE_EVERY
        if (due or (now + 1) % steps == 0) and not all(map(math.isfinite, state['sums'].values())):
            fail(f'{options.out}: a loss is not finite at step {now + 1}, or up to {SAVE_EVERY} s '
                 'before; last.pt is from before; try a smaller --lr, or another --seed')
        if (now + 1) % steps == 0:
            with autocast:
                end_epoch(options, sets, model, state)
        if due:
            save(options, model, optimizers, state)
            saved = state['seconds']
        if stop:
            break
    print(f'step {state["step"]} of {total} is saved; to go on: python train.py --resume --out "'
          f'{options.out}"; to paint: python sample.py --ckpt "{options.out / "last.pt"}"')

def main():
    """Train as the command line says."""
    signal.signal(signal.SIGINT, lambda *_: fail('stopped before the first step'))
    options = read_options(sys.argv[1:])
    state = {'step': 0, 'seconds': 0.0, 'rows': [], 'sums': {}, 'optimizers': []}
    if options.resume:
        options, model, checkpoint = restore(options.out / 'last.pt', sys.argv[1:])
        state |= checkpoint
    elif (options.out / 'last.pt').exists():
        fail(f'{options.out}: holds a run; give another --out, or go on with --resume')
    kind = options.device.type
    # Where it computes in bfloat16: on two CPU cores with AVX512-BF16 a step takes half the time.
    abilities = getattr(torch.cpu, 'get_capabilities', dict)()                # not in torch 2.10
    fast = (kind == 'cpu' and abilities.get('avx512_bf16', False)
            or kind == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False))
    options.precision = options.precision or ('bfloat16' if fast else 'float32')
    autocast = torch.autocast(kind, torch.bfloat16, options.precision == 'bfloat16')
    sets = [torch.from_numpy(load(vars(options)[name], options.load_size, options.channels,
                                  dabs=name == 'data')).to(options.device)
            for name in (['data'] if options.model == 'dcgan' else ['photos', 'data'])]
    n, options.load_size, _, options.channels = sets[-1].shape
    options.size = options.size or options.load_size // 32 * 32        # 64 of 72; of IDX files 32
    steps = math.ceil(n / options.batch)
    options.epochs = options.epochs or math.ceil(STEPS / steps)
    if not options.resume:
        torch.manual_seed(options.seed)
        model = MODELS[options.model](**vars(options))
    model.to(options.device, memory_format=torch.channels_last)
    optimizers = [torch.optim.Adam(nets.parameters(), betas=model.BETAS, fused=True)
                  for nets in (model.discriminators, model.generators)]
    for optimizer, saved in zip(optimizers, state['optimizers']):
        optimizer.load_state_dict(saved)
    if state.setdefault('steps', steps) != steps:
        fail(f'{options.out}: has {state["steps"]} steps an epoch; give its pictures and --batch')
    save(options, model, optimizers, state)                # or fail, before any work is done
    for name, nets in (('generators', model.generators), ('discriminators', model.discriminators)):
        print(f'{name}: {sum(map(torch.numel, nets.parameters())) / 1e6:.1f} million weights')
    print(*(f'{name} {value}' for name, value in vars(options).items()), sep=', ', flush=True)
    train(options, sets, model, optimizers, autocast, state)

if __name__ == '__main__':
    main()
