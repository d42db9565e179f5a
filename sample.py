"""Paint with a trained model.

    python sample.py -n 64                                 a grid of 64 pictures
    python sample.py -n 48 --out walk.gif                  a walk through the space of z
    python sample.py -n 7000 --out images.zip              what Kaggle's contest takes
"""
import math
import sys
from pathlib import Path

import numpy as np
import torch

from data import Parser, command, grid, within, write
from gan import latents
from train import pick_device, restore, to_uint8


def samples(model, n, seed):
    """Yield (name, picture) n times: number k of a seed is the same whatever n."""
    rng = np.random.default_rng(seed)
    for first in range(0, n, 16):
        images = to_uint8(model.paint(latents(min(16, n - first), rng)))
        for number, image in enumerate(images, start=first):
            yield f'{number:05d}', image


def walk(model, n, seed):
    """Yield n frames of a 4x4 grid, each z on a circle: cos(t) a + sin(t) b is N(0, 1) as a and b."""
    a, b = latents(32, np.random.default_rng(seed)).chunk(2)
    for t in np.arange(n) * 2 * math.pi / n:
        images = model.paint(math.cos(t) * a + math.sin(t) * b)
        yield None, np.asarray(grid(to_uint8(images), columns=4))


def main():
    """Read the options, paint, write."""
    options = Parser(description=__doc__.splitlines()[0])
    options.add_argument('-n', type=within(int, 1, 1e6), default=64, help='pictures; default: 64')
    options.add_argument('--seed', type=within(int, 0), default=0, help='of z; default: 0')
    options.add_argument('--ckpt', type=Path, default='out/dcgan/last.pt', help='default: %(default)s')
    options.add_argument('--out', type=Path, help='.png, .gif, .zip or a folder; default: '
                         'samples.png beside the checkpoint')
    options.add_argument('--device', help='default: cuda, mps or cpu, the first that is there')
    args = options.parse_args()
    _, model, _ = restore(args.ckpt)
    model.to(pick_device(args.device)).settle()
    out = args.out or args.ckpt.with_name('samples.png')
    paint = walk if out.suffix.lower() == '.gif' else samples
    write(paint(model, args.n, args.seed), out, columns=math.ceil(math.sqrt(args.n)))
    print(out)


if __name__ == '__main__':
    command(main)
