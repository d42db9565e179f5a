"""Pictures from a trained model: new ones by DCGAN, translated ones by CycleGAN.
    python sample.py -n 64                               # out/dcgan/samples.png; or --out walk.gif
    python sample.py --photos photo_jpg --out images.zip # what the contest at Kaggle takes"""
import argparse
from pathlib import Path

from data import grid, pictures, write                         # before torch: handles Ctrl-C
import torch
from gan import noise
from train import BEST, restore, to_uint8, within

def translate(model, options, source, ending, back, n):
    """Yield (name, picture) of all in `source`, translated; .png: n, each beside its original."""
    size = {'.png': options.load_size, '.gif': options.load_size, '.zip': 256}.get(ending, 0)
    for name, picture in pictures(source, options.channels, size, n if ending == '.png' else None):
        x = torch.tensor(picture, device=options.device).permute(2, 0, 1)[None]
        image = to_uint8(model.paint(x / 127.5 - 1, back))
        yield name, grid([picture, *image], columns=2) if ending == '.png' else image[0]

def main():
    """Read the options, make the pictures, write them."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__.splitlines()[0])
    add, one = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add('-n', type=within(1, 1e5), default=64, help='new pictures, or pairs in a .png; default: 64')
    one('--photos', type=Path, help='translate these, X to Y')
    one('--paintings', type=Path, help='translate these, Y to X')
    add('--seed', type=within(0), default=0, help='of z; default: 0')
    add('--ckpt', type=Path, help='default: out/dcgan/last.pt, or out/cyclegan/last.pt')
    add('--out', type=Path, help='.png, .gif, .zip, or a folder; default: samples.png beside ckpt')
    add('--device', choices=sorted({BEST, 'cpu'}), default=BEST, help=f'default: {BEST}')
    args = parser.parse_args()
    source = args.photos or args.paintings
    name = 'cyclegan' if source else 'dcgan'
    path = args.ckpt or Path('out', name, 'last.pt')
    options, model, _ = restore(path, [f'--device={args.device}', f'--model={name}'])
    ending = (out := args.out or path.with_name('samples.png')).suffix.lower()
    columns = int(((args.n - 1) / (2 if source and ending == '.png' else 1)) ** 0.5) + 1  # square
    if source:
        named = translate(model, options, source, ending, back=not args.photos, n=args.n)
    else:
        t = torch.arange(48 if ending == '.gif' else 1).view(-1, 1, 1) * torch.pi / 24
        z = t.cos() * noise(args.n, args.seed) + t.sin() * noise(args.n, args.seed + 1)  # a walk
        named = enumerate(image for x in model.paint(z.to(args.device)) for image in to_uint8(x))
    write(named, out, columns, n=args.n)
    print(out)

if __name__ == '__main__':
    main()
