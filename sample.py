"""Pictures from a trained model: new ones by DCGAN, translated ones by CycleGAN.

    python sample.py -n 64                                 a grid, out/dcgan/samples.png
    python sample.py -n 48 --out walk.gif                  a walk through the space of z
    python sample.py --photos photo_jpg --out images.zip   what the contest at Kaggle takes"""
import argparse
import math
import signal
from itertools import islice
from pathlib import Path

import torch

from data import fail, grid, pictures, write
from gan import noise
from train import restore, to_uint8, within

def paint(model, n, seed):
    """Yield (name, picture) n times: number k of a seed is the same whatever n."""
    images = (image for z in noise(n, seed).split(16) for image in to_uint8(model.paint(z)))
    return ((f'{number:05d}', image) for number, image in enumerate(images))

def walk(model, n, seed):
    """Yield n frames, grids of 16, whose z go round: cos(t) a + sin(t) b, N(0, 1) like a and b."""
    a, b = noise(32, seed).chunk(2)
    for t in torch.arange(n, dtype=torch.float64) * 2 * math.pi / n:
        yield 'frame', grid(to_uint8(model.paint(t.cos() * a + t.sin() * b)), columns=4)

def translate(model, path, channels, size, back, beside):
    """Yield (name, picture) for each in `path`, decoded to `size` (0: its own) and translated; with
    `beside`, to the right of its original."""
    for name, picture in pictures(path, channels, size):
        x = torch.tensor(picture, device=next(model.parameters()).device).permute(2, 0, 1)[None]
        image = to_uint8(model.paint(x / 127.5 - 1, back))[0]
        yield name, grid([picture, image], columns=2) if beside else image

def main():
    """Read the options, make the pictures, write them."""
    signal.signal(signal.SIGINT, lambda *_: fail('stopped'))
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('-n', type=within(int, 1, 1e5), default=64, help='pictures, or pairs in .png; default: 64')
    one = parser.add_mutually_exclusive_group().add_argument
    one('--photos', type=Path, help='translate these, X to Y')
    one('--paintings', type=Path, help='translate these, Y to X')
    add('--seed', type=within(int, 0), default=0, help='of z; default: 0')
    add('--ckpt', type=Path, help='default: out/dcgan/last.pt, or out/cyclegan/last.pt')
    add('--out', type=Path, help='.png (grid), .gif (walk), .zip (Kaggle) or a new folder; '
        'default: samples.png beside the checkpoint')
    add('--device', default='', help='default: cuda, mps or cpu, the first that is there')
    args = parser.parse_args()
    source = args.photos or args.paintings
    path = args.ckpt or Path('out', 'cyclegan' if source else 'dcgan', 'last.pt')
    options, model, _ = restore(path, [f'--device={args.device}'])
    if (options.model == 'cyclegan') != bool(source):
        fail(f'{path}: a {options.model}; give --photos for cyclegan, not for dcgan')
    model.to(options.device, memory_format=torch.channels_last)
    out = args.out or path.with_name('samples.png')
    ending = out.suffix.lower()
    if source:
        size = {'.png': options.load_size, '.gif': options.load_size, '.zip': 256}.get(ending, 0)
        named = translate(model, source, options.channels, size, not args.photos, ending == '.png')
        named = islice(named, args.n if ending == '.png' else None)
    else:
        model.settle()
        named = (walk if ending == '.gif' else paint)(model, args.n, args.seed)
    write(named, out, columns=math.ceil(args.n ** 0.5 / (2 if source else 1)))
    print(out)

if __name__ == '__main__':
    main()
