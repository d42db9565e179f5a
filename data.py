"""Pictures in and out. A set of them is one array (N, H, W, C) uint8, C = 3 (RGB) or 1 (gray).
    python data.py monet_jpg photo_jpg      # how many, of which kinds; look.png: 10 of each"""
import argparse
import gzip
import io
import os
import re
import signal
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageOps
PICTURES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif')
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')      # not EPS, which would run a program
fail = argparse.ArgumentParser(usage=argparse.SUPPRESS).error       # prints a line, exits with 2
signal.signal(signal.SIGINT, lambda *_: fail('stopped'))            # Ctrl-C; train() has its own

@contextmanager
def replacing(path):
    """Yield a path to write to; it takes the place of `path` only once it is written whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix='.part-') as folder:   # goes at Ctrl-C, too
            yield (new := Path(folder, path.name))
            new.replace(path)
    except (OSError, RuntimeError) as error:            # torch.save() to a full disk: the second
        fail(f'{path}: not written, what was there is kept ({error}); is there room? is it open?')

def inside(message, *tags):
    """Yield what lies where `tags` lead in a message of Protocol Buffers, a row of fields: a tag (8
    times its number, + 2), the length of its content (7 bits a byte, the lowest first), content."""
    while head := re.match(rb'(?s)(.)([\x80-\xff]{0,9}[\0-\x7f])', message):
        end = head.end() + sum((byte & 127) << 7 * i for i, byte in enumerate(head[2]))
        content, message = message[head.end():end], message[end:]
        if head[1][0] == tags[0]:
            yield from inside(content, *tags[1:]) if tags[1:] else [content]

def read(file):
    """Yield the pictures in a file's first GiB: of TFRecords (tf.train.Examples, in them Features,
    pairs of name and Feature) encoded, of IDX (yann.lecun.com/exdb/mnist) as (H, W) uint8."""
    with suppress(Exception), (gzip.open if file.suffix == '.gz' else open)(file, 'rb') as stream:
        content = memoryview(stream.read(2**30))               # fails: unreadable, cut off, no gzip
        while content and '.tfrec' in file.name.lower():
            length = int.from_bytes(content[:8], 'little') or len(content)   # then 4 of a checksum
            record = content[12:12 + length] if 16 + length <= len(content) else b''  # cut off or 0
            pairs = (pair for pair in inside(record, 10, 10) if b'image' in inside(pair, 10))
            yield io.BytesIO(b''.join(x for pair in pairs for x in inside(pair, 18, 10, 10)))
            content = content[16 + length:]                                  # and 4 of another
        header, pixels = np.split(np.frombuffer(content, np.uint8), [16])   # TFRecords, labels fail
        yield from pixels.reshape(header.view('>u4')[1:])[:len(pixels)]   # N, H, W; none if H W = 0

def decode(source, file, channels=None, size=None, found=()):
    """The picture (H, W, C) uint8 of a Path or of what read() yields; None if it is broken or has
    over 25 million pixels. Upright, on white if transparent; C: channels, else 3, IDX 1. The middle
    square, resized to size (else 72, IDX 32), antialiased; 0: all. Side, mode, folder: to found."""
    with suppress(Exception):         # decoders raise all sorts of things; so does None.mode, below
        idx = isinstance(source, np.ndarray)
        size = (32 if idx else 72) if size is None else size
        with Image.fromarray(source) if idx else Image.open(source, formats=FORMATS) as image:
            found += min(image.size), image.mode, f'{file.parent}/'      # in place, if it is a list
            image.draft(None, [3 * size or n for n in image.size])       # large JPEGs, coarsely
            image = ImageOps.exif_transpose(image) if image.width * image.height < 2.5e7 else None
        if image.mode.startswith('I'):                # 16 bits: convert() would clip, not scale
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        image = ImageOps.fit(image.convert('RGBA'), [size or n for n in image.size], Image.LANCZOS)
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
        return np.atleast_3d(image.convert('L' if channels == 1 or idx and not channels else 'RGB'))

def pictures(path, channels=None, size=None, n=None, found=()):
    """Yield (name, picture) of all in `path`, or of the first n, in order, by several threads; then
    sum up (found=[]: bars, too). A folder: pictures below it, not hidden, or else other files."""
    files = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names
                   if f'{os.sep}.' not in os.path.join(folder, name)[len(str(path)):]) or [path]
    items = ([(f, f) for f in files if f.suffix.lower() in PICTURES and os.path.isfile(f)] or
             [(one, f) for f in files if os.path.isfile(f) for one in read(f)])[:n]      # no pipes
    used, broken, start = [], [], time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i in range(0, len(items), 16):                # so that few are decoded at once
            if i and sys.stderr.isatty():
                left = (time.monotonic() - start) * (len(items) / i - 1) / 60
                print(f'{i} of {len(items)}, {left:.1f} min left', end='\r', file=sys.stderr)
            decoded = pool.map(lambda item: decode(*item, channels, size, found), items[i:i + 16])
            for (source, file), picture in zip(items[i:i + 16], decoded):
                (broken if picture is None else used).append(file)
                if picture is not None:
                    name = os.path.relpath(file, path.parent if file == path else path)
                    yield name if source is file else f'{name}/{len(used):05d}', picture
    if not used:
        fail(f'{path}: {"nothing to read" if os.path.exists(path) else "not there"}; give a folder '
             'of pictures, *.tfrec* or IDX files; Monets: kaggle.com/c/gan-getting-started/data')
    rest = [file.name for file in sorted({*broken} if n else ({*files} - {*used}) | {*broken})]
    print(f'{path}: {len(used)} pictures; {len(rest)} files not (wholly) read: {rest[:9]}' +
          (f'; shorter sides {min(found[::3])} to {max(found[::3])} px' if found else '') +
          '; all twice? give one folder' * (round(len({*used}) / len({f.name for f in used})) == 2))
    for label, count in zip(*np.unique(found[1::3] + found[2::3], return_counts=True)):
        print(f'{count:8} {"#" * (120 * count // len(found)):40} {label.item()!r}')  # found: 3 each

def toy_scene(number, size, dabs):
    """Landscape `number` (size, size, 3) uint8, always the same; with dabs, painted in strokes."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:1:rng.integers((size + 1) // 2, size * 2 // 3) * 1j, 0:1:size * 1j][..., None]
    top, low = rng.uniform([[60, 80, 130], [225, 170, 90]], [[130, 140, 210], [255, 230, 220]])
    sun = np.exp(-np.hypot(x - rng.uniform(.1, .9), y / 2 - rng.uniform(.05, .25)) / 0.08)
    scene = top + (low - top) * y + sun * (200, 160, 60)
    for tall, hill in ((0.4, (100, 130, 150)), (0.15, (70, 105, 80))):
        ridge = 1 - tall * (0.6 + 0.4 * np.sin(x * rng.uniform(4, 12) + rng.uniform(0, 6)))
        scene = np.where(y > ridge, hill + 40 * (1 - y), scene)
    scene = np.vstack([scene, 0.8 * scene[::-1]])[:size].clip(10, 245).astype(np.uint8)    # water
    painted = scene.copy()
    for i, j in rng.integers(0, size, (12 * size if dabs else 0, 2)):
        painted[i:i + size // 20, j:j + size // 10] = scene[i, j] + rng.integers(-10, 11, 3)
    return painted

def load(path=None, size=None, channels=None, dabs=True):
    """All pictures of `path`, or with no path toy scenes, as one array (N, size, size, C) uint8."""
    if not path:
        return np.stack([toy_scene(i, size or 64, dabs) for i in range(320)])[..., :channels]
    return np.stack([picture for _, picture in pictures(Path(path), channels, size, found=[])])

def grid(tiles, columns):
    """Pictures (H, W, C) uint8, of one size, as one such picture: rows of `columns`, 2 px apart."""
    tiles = np.pad(tiles, [(0, -len(tiles) % columns), (0, 2), (0, 2), (0, 0)], constant_values=255)
    return np.vstack([np.hstack(row) for row in np.split(tiles, len(tiles) // columns)])[:-2, :-2]

def curve(name, rows):
    """(name, diagram (150, 400, 3) uint8) of what rows have by that name; 0 is at the bottom."""
    draw = ImageDraw.Draw(image := Image.new('RGB', (400, 150), 'whitesmoke'))
    y = np.nan_to_num([row[name] for row in (rows if len(rows) > 1 else 2 * rows)])  # to see one
    draw.text((5, 5), f'{name}: 0 to {y.max():.3g}, epochs 1 to {len(rows)}', 'black')
    draw.line([*zip(np.linspace(5, 394, len(y)), 144 - 120 * y / max(*y, 1e-9))], 'blue')
    return name, np.asarray(image)

def write(named, path, columns=1, n=sys.maxsize):
    """Write pairs (name or number, picture), in a form by the ending of `path`. .png: a grid. .gif:
    grids of n in turn. .zip: JPEGs of 256x256, for Kaggle. Else: a new folder of PNGs."""
    ending = path.suffix.lower()
    if ending in ('.png', '.gif'):
        tiles = [picture for _, picture in named]
        grids = [grid(tiles[i:i + n], min(columns, len(tiles))) for i in range(0, len(tiles), n)]
        sheets = [Image.fromarray(x.squeeze()).crop((0, 0, *grids[0].shape[1::-1])) for x in grids]
        with replacing(path) as temporary:     # crop() adds black if the last has fewer
            sheets[0].save(temporary, save_all=True, append_images=sheets[1:], duration=100, loop=0)
    elif ending == '.zip':
        with replacing(path) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
            for number, (_, picture) in enumerate(named, start=1):
                image = Image.fromarray(picture.squeeze()).convert('RGB').resize((256, 256))
                with archive.open(f'{number:05d}.jpg', 'w') as file:
                    image.save(file, 'JPEG', quality=95)
        warning = '' if 7000 <= number <= 10000 else '; warning: the contest takes 7,000 to 10,000'
        print(f'{path}: {number} pictures{warning}')
    elif os.path.exists(path) or ending in PICTURES:
        fail(f'{path}: give a folder that is not there yet, or .png, .gif or .zip')
    else:
        for name, picture in named:
            file = (path / f'{name:0>5}').with_suffix('.png')     # 42: 00042.png; a.jpg: a.png
            write([(name, picture)], path / f'{name}.png' if os.path.exists(file) else file)

if __name__ == '__main__':
    write(((0, x) for a in sys.argv[1:] or [0] for x in load(a, 72, 3)[:10]), Path('look.png'), 10)
