"""Pictures from a trained model: new ones by DCGAN, translated ones by CycleGAN.

    python sample.py -n 64                                 a grid, out/dcgan/samples.png
    python sample.py --photos photo_jpg --out images.zip   what the contest at Kaggle takes"""
import argparse
from itertools import islice
from pathlib import Path

import torch

from data import fail, grid, pictures, write
from gan import noise
from train import BEST, DEVICES, restore, to_uint8, within

def translate(model, device, named, back, beside):
    """Yield (name, picture) for each of `named`, translated; with `beside`, beside its original."""
    for number, (name, picture) in enumerate(named, start=1):
        x = torch.tensor(picture, device=device).permute(2, 0, 1)[None]
        image = to_uint8(model.paint(x / 127.5 - 1, back))
        yield name, grid([picture, *image], columns=2) if beside else image[0]
        if number % 500 == 0:
            print(f'{number} are done', flush=True)

def main():
    """Read the options, make the pictures, write them."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__.splitlines()[0])
    add, one = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add('-n', type=within(1, 1e5), default=64, help='new pictures, or pairs in a .png; default: 64')
    one('--photos', type=Path, help='translate these, X to Y')
    one('--paintings', type=Path, help='translate these, Y to X')
    add('--seed', type=within(0), default=0, help='of z; default: 0')
    add('--ckpt', type=Path, help='default: out/dcgan/last.pt, or out/cyclegan/last.pt')
    add('--out', type=Path, help='.png, .zip (Kaggle) or a new folder; default: samples.png')
    add('--device', choices=DEVICES, default=BEST, help=f'default: {BEST}')
    args = parser.parse_args()
    source = args.photos or args.paintings
    path = args.ckpt or Path('out', 'cyclegan' if source else 'dcgan', 'last.pt')
    options, model, _ = restore(path, [f'--device={args.device}'])
    if (options.model == 'cyclegan') != bool(source):
        fail(f'{path}: a {options.model}; give --photos for cyclegan, not for dcgan')
    out = args.out or path.with_name('samples.png')
    form = out.suffix.lower()
    if source:
        size = {'.png': options.load_size, '.zip': 256}.get(form, 0)
        named = islice(pictures(source, options.channels, size), args.n if form == '.png' else None)
        named = translate(model, args.device, named, not args.photos, beside=form == '.png')
    else:
        z = noise(args.n, args.seed).to(args.device)
        images = (image for x in model.paint(z) for image in to_uint8(x))
        named = ((f'{number:05d}', image) for number, image in enumerate(images))
    write(named, out, columns=int(((args.n - 1) / (2 if source else 1)) ** 0.5) + 1)
    print(out)

if __name__ == '__main__':
    main()
