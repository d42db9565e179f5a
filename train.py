"""Train a GAN: the step, the loop around it, and the files that a run leaves in its folder.
    python train.py --data monet_jpg --epochs 200       # and if it stopped: train.py --resume
    python train.py --model cyclegan --data monet_jpg --photos photo_jpg"""
import argparse
import atexit
import os
import signal
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from data import curve, fail, load, pictures, replacing, write   # before torch: handles Ctrl-C
import torch
from gan import DCGAN, CycleGAN
MODELS = {'dcgan': DCGAN, 'cyclegan': CycleGAN}
STEPS = 1800                          # of a run without --epochs, rounded up to whole epochs
SAVE_EVERY = 50                       # seconds
DECAY = 0.998     # of the average: over up to 500 steps; at first fewer, to forget random weights
if torch.__version__ < '2.10':   # (compares numbers, not text) torch.load() had holes before it
    fail(f'torch {torch.__version__}: 2.10 and newer read checkpoints safely; pip install -U torch')
RANK, WORLD = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))     # torchrun's
BEST = str(torch.accelerator.current_accelerator(check_available=True) or 'cpu')  # or cuda, mps

def within(low, high=1e9):
    """A type for argparse: numbers from low to high, int or float as low is."""
    def number(text):
        if low <= type(low)(text) <= high:
            return type(low)(text)
        raise argparse.ArgumentTypeError(f'{text} is not from {low} to {high:g}')
    return number

def read_options(arguments):
    """The options of a run, off the command line or a checkpoint: the same checks for both."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__.splitlines()[0])
    add = parser.add_argument_group('model').add_argument
    add('--model', choices=MODELS, help='default: dcgan, but with --photos cyclegan')
    add('--size', type=within(32, 4096), help='32, 64, 128, 256 px (64; IDX 32), cyclegan 4n (256)')
    add('--width', type=within(1, 1024), default=64, help='fewest channels; default: 64')
    add('--blocks', type=within(0, 64), default=9, help='residual, of cyclegan; default: 9')
    add('--upsample', choices=('resize', 'transposed'), default='resize', help='default: resize')
    add('--channels', type=int, choices=(1, 3), help='default: 3 (RGB), dcgan of IDX files 1')
    add = parser.add_argument_group('training; dcgan toys: batch 8, width 32, lr 4e-4').add_argument
    add('--data', type=Path, help='pictures, TFRecords, IDX files; default: toy paintings')
    add('--photos', type=Path, help='the same, for cyclegan; default: toy scenes')
    add('--load-size', type=within(32, 4608), help='pixels, to crop --size from; default: 1/8 more')
    add('--epochs', type=within(1), help=f'default: {STEPS} steps, rounded up to whole epochs')
    add('--batch', type=within(1), help='most pictures a step, in all; default: 16, cyclegan 1')
    add('--lr', type=within(1e-9), default=2e-4, help='of Adam; in 2nd half to 0; default: 2e-4')
    add('--seed', type=within(0), default=0, help='of everything random; default: 0')
    add('--device', choices=sorted({BEST, 'cpu'}), default=BEST, help=f'default: {BEST}')
    add('--precision', choices=('bfloat16', 'float32'), help='default: bfloat16 where it is fast')
    add('--out', type=Path, help='folder to write to; default: out/dcgan or out/cyclegan')
    add('--resume', action='store_true', help='go on from last.pt in --out')
    given = parser.parse_args(arguments)
    model = given.model or ('cyclegan' if given.photos else 'dcgan')
    sizes = MODELS[given.model or ('cyclegan' if given.resume else model)].SIZES    # resumed: any
    defaults = {'batch': 16} if given.data else {'batch': 8, 'width': 32, 'lr': 4e-4}       # toys
    defaults = {'batch': 1, 'channels': 3, 'load_size': 288} if model == 'cyclegan' else defaults
    parser.set_defaults(model=model, out=Path('out', model), **defaults)
    options = parser.parse_args(arguments)                      # once more, with these defaults
    options.batch = max(options.batch, 1 if options.resume else WORLD)     # one for each process
    options.load_size = given.load_size or (options.size or 0) * 9 // 8 or options.load_size
    if options.size and (options.size not in sizes or options.size > options.load_size):
        parser.error(f'--size {options.size}: give {sizes}, up to --load-size {options.load_size}')
    return options

def restore(path, arguments):
    """(options, model, state) that a run saved, `arguments` overriding its own; or fail()."""
    saved = 'nothing that can be read'
    try:     # no zip bomb (torch.save() never compresses), no damage, no calls that fill the memory
        bad = any(a.compress_type for a in ZipFile(path).infolist()) or ZipFile(path).testzip()
        bad = bad or any(a in path.read_bytes() for a in (b'bytearray\n', b'encode\n', b'ensor\n'))
        state = {} if bad else torch.load(path, map_location='cpu', weights_only=True)
        saved = [option for option in state['options'] if option.find('=') > 0]      # no --help
        options = read_options([*saved, *arguments, f'--out={path.parent}'])
        with torch.device('meta'):                # no memory yet: how much would weights take?
            model = MODELS[options.model](**vars(options))
        assert sum(x.nbytes for x in model.state_dict().values()) < path.stat().st_size
        model.to_empty(device=options.device).load_state_dict(state['model'])
        return options, model.to(memory_format=torch.channels_last), state
    except Exception as error:
        fail(f'{path}: no checkpoint that fits this program and options ({error!r:.99}); '
             f'has {saved}; train.py makes one; omit other options; only cyclegans need --photos')

def draw_batch(pixels, first, end, size, seed):
    """x (B, C, size, size) in [-1, 1] from pixels (N, C, H, W) uint8: one crop for all, and flips.
    Of endless shuffled passes, numbers first ... end - 1; past a pass's end, its first again."""
    order = np.random.default_rng((*seed, first // len(pixels))).permutation(len(pixels))
    top, left = torch.randint(pixels.shape[2] - size + 1, (2,)).tolist()
    x = pixels[order.take(range(first, end), mode='wrap'), :, top:top + size, left:left + size]
    return torch.where(torch.rand(len(x), 1, 1, 1).to(x.device) < 0.5, x, x.flip(3)) / 127.5 - 1

def to_uint8(x):
    """Tensor (B, C, H, W) in [-1, 1] -> array (B, H, W, C) uint8."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

def share(tensors):
    """Replace each tensor by its mean over torchrun's processes: all take the same steps."""
    for tensor in tensors if WORLD > 1 else []:
        torch.distributed.all_reduce(tensor.div_(WORLD))

def step(model, optimizer, batch, autocast, decay):
    """Update D, then G, then the average, by `batch`, a list of tensors (B, C, H, W) in [-1, 1]."""
    values, losses = {}, model.losses(*batch)
    for nets in (model.discriminators, model.generators):
        loss, terms = autocast(next)(losses)       # next(losses), in bfloat16 where it will do
        optimizer.zero_grad()                       # Adam skips weights that have no .grad:
        loss.backward(inputs=[*nets.parameters()])  # only these get one (G's loss comes through D)
        values |= {name: value.detach().mean() for name, value in terms.items()}
        share([*(values[name] for name in terms), *(weight.grad for weight in nets.parameters())])
        optimizer.step()
    for average, current in zip(model.average.parameters(), model.generators.parameters()):
        average.lerp_(current.detach(), 1 - decay)        # decay * average + (1 - decay) * current
    return values    # to log, as tensors: .item() makes a GPU wait; only a terminal's line needs it

def end_epoch(options, sets, model, autocast, state):
    """Write log.csv with one more row and, 10 to 20 times in a long run, a grid and loss.png."""
    rows, epoch, seconds = state['rows'], len(state['rows']) + 1, state['seconds']
    speed = len(sets[-1]) / (seconds - (rows[-1]['seconds'] if rows else 0))
    row = {'epoch': epoch, 'step': state['step'], 'seconds': seconds, 'images_per_second': speed}
    rows.append(row | {name: state['sums'].pop(name).item() for name in [*state['sums']]})
    print(', '.join(f'{name} {value:.5g}' for name, value in rows[-1].items()), flush=True)
    with replacing(options.out / 'log.csv') as file:
        np.savetxt(file, [[*row.values()] for row in rows], fmt='%.9g', delimiter=',',
                   header=','.join(rows[-1]), comments='')
    if (options.epochs - epoch) % ((options.epochs - 1) // 20 + 1) == 0:
        x, columns = autocast(model.preview)(*(a[:4].to(options.device) / 127.5 - 1 for a in sets))
        write(enumerate(to_uint8(x)), options.out / f'samples/{epoch:04d}.png', columns)
        write((curve(name, rows) for name in [*rows[-1]][4:]), options.out / 'loss.png', columns=2)

def train(options, sets, model, optimizer, autocast, state):
    """The loop: all steps up to the last of --epochs, or up to a save after Ctrl-C or SIGTERM."""
    stop, due, save_at, (steps, *_, n) = [], [False], 0, state['count']       # n: of paintings
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stop.append(number))
    start, total = time.perf_counter() - state['seconds'], steps * options.epochs
    while (now := state['step']) < total and not due[0]:
        # All that is random in a step follows from seed, step, RANK: a resumed run draws the same.
        torch.manual_seed(np.random.default_rng((options.seed, now, RANK)).integers(2 ** 32))
        # A step takes n / steps pictures, rounded down or up: an epoch shows each painting once.
        first, end = ((now * WORLD + rank) * n // (steps * WORLD) for rank in (RANK, RANK + 1))
        model.seen, end = first // WORLD, max(end, first + 1)       # at least one picture
        batch = [draw_batch(pixels, first, end, options.size, (options.seed, number))
                 .to(options.device) for number, pixels in enumerate(sets)]   # if not there already
        optimizer.param_groups[0]['lr'] = options.lr * min(1, 2 - 2 * now / total)  # 2nd half: to 0
        values = step(model, optimizer, batch, autocast, min(DECAY, (now + 1) / (now + 10)))
        state['sums'] = {name: state['sums'].get(name, 0) + values[name] / steps for name in values}
        state |= {'step': (done := now + 1), 'seconds': time.perf_counter() - start}
        if sys.stderr.isatty() and not RANK:
            left = state['seconds'] * (total / done - 1) / 60
            line = (f'epoch {now // steps + 1}, step {done} of {total}, {left:.1f} min left, '
                    f'{done * n / steps / state["seconds"]:.3g} images/s')
            line += ''.join(f', {name[5:]} {values[name]:.2f}' for name in values if 'loss' in name)
            print(f'{line:79.79}', end='\r', file=sys.stderr)
        due = torch.Tensor([len(stop), not RANK and state['seconds'] > save_at, done % steps == 0])
        share([due])        # to stop, to save, an epoch's end: all know of it after the same step
        if any(due) and not all(weight.isfinite().all() for weight in model.parameters()):
            fail(f'{options.out}: not finite by step {done}; --resume with a smaller --lr')
        if due[2] and not RANK:
            end_epoch(options, sets, model, autocast, state)
        if (any(due[:2]) or done == total) and not RANK:
            state |= {'model': model.state_dict(), 'optimizer': optimizer.state_dict()}
            with replacing(options.out / 'last.pt') as temporary:
                torch.save(state, temporary)
            save_at = state['seconds'] + SAVE_EVERY
    if state['step'] == total and not RANK:
        write(pictures(options.out / 'samples', size=0), options.out / 'progress.gif', n=1)
    print(f'saved; go on: python train.py --resume --out "{options.out}" (if done, more --epochs)')

def main():
    """Begin or resume the run that the command line asks for, in each of torchrun's processes."""
    options = read_options(sys.argv[1:])
    if WORLD > 1:    # BatchNorm's statistics: of each process's own pictures, as in a smaller batch
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) if options.device == 'cuda' else -1)
        torch.distributed.init_process_group()                       # NCCL for GPUs, gloo for CPUs
        atexit.register(torch.distributed.destroy_process_group)
        sys.stdout = None if RANK else sys.stdout                    # the first speaks for all
    if options.resume:
        options, model, state = restore(options.out / 'last.pt', sys.argv[1:])
    elif ({options.data, options.photos} & {*(options.out / 'x').parents} or   # itself or above
          any(os.path.exists(options.out / name) for name in ('last.pt', 'samples'))):
        fail(f'{options.out}: holds a run (--resume?) or lies in the pictures; give another --out')
    # bfloat16 where it is faster: on CPUs with AMX, AMD's with AVX512-BF16 (2 times; Intel's: 0.7)
    units = getattr(torch.cpu, 'get_capabilities', dict)()                             # torch 2.11
    fast = (torch.cuda.is_bf16_supported(including_emulation=False) if options.device == 'cuda' else
            units.get('amx_bf16' if 'Intel' in units.get('cpu_name', '') else 'avx512_bf16'))
    options.precision = options.precision or ('bfloat16' if fast else 'float32')
    autocast = torch.autocast(options.device, torch.bfloat16, options.precision == 'bfloat16')
    sources = [(options.photos, False)] * (options.model == 'cyclegan') + [(options.data, True)]
    sets = [load(path, options.load_size, options.channels, dabs=dabs) for path, dabs in sources]
    fit = options.device != 'cuda' or sum(x.nbytes for x in sets) < torch.cuda.mem_get_info()[0] / 2
    sets = [torch.from_numpy(x).movedim(3, 1).to(options.device if fit else 'cpu') for x in sets]
    n, options.channels, options.load_size, _ = sets[-1].shape
    options.size = options.size or min(256, 2 ** (options.load_size.bit_length() - 1))   # 64 of 72
    count = [(n - 1) // options.batch + 1, *map(len, sets)]          # steps an epoch, and pictures
    options.epochs = options.epochs or (STEPS - 1) // count[0] + 1
    if not options.resume:
        torch.manual_seed(options.seed)
        model = MODELS[options.model](**vars(options))
        model.to(options.device, memory_format=torch.channels_last)
        state = {'step': 0, 'count': count, 'seconds': 0, 'rows': [], 'sums': {}}
    if (saved := state['count']) != count:
        fail(f'{options.out}: steps, pictures {saved}, now {count}: keep --data, --photos, --batch')
    optimizer = torch.optim.Adam(model.parameters(), betas=model.BETAS, fused=True)  # lr: train()
    optimizer.load_state_dict(state.get('optimizer', optimizer.state_dict()))
    for weight, means in optimizer.state.items():   # fused Adam checks no shapes; copy_() does
        means |= {a: torch.empty_like(weight).copy_(means[a]) for a in ('exp_avg', 'exp_avg_sq')}
    state['options'] = [f'--{key.replace("_", "-")}={value}' for key, value in vars(options).items()
                        if value is not None and key not in ('device', 'out', 'resume')]
    print(f'{n} pictures, {sum(x.numel() for x in model.parameters() if x.requires_grad):,} '
          f'weights, {WORLD} x {options.device}:', *state['options'], flush=True)
    train(options, sets, model, optimizer, autocast, state)

if __name__ == '__main__':
    main()
