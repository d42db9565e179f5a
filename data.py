"""Pictures in and out: folders, TFRecords, IDX files or toy scenes in; grids, GIFs, zips out.

    python data.py monet_jpg photo_jpg          tells what is there; a sheet of it: out/data.png

A set of pictures is one uint8 array (N, H, W, C), with C = 3 (RGB) or, from IDX files, 1 (gray)."""
import argparse
import gzip
import io
import os
import sys
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

PICTURES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif')
RECORDS = ('.tfrec', '.tfrecord', '.tfrecords')

# fail(message): one line that names what was found where, and what to try next; exit code 2.
fail = argparse.ArgumentParser(usage=argparse.SUPPRESS).error

@contextmanager
def replacing(path):
    """Yield a path to write to; it takes the place of `path` only once it is written whole."""
    temporary = path.with_name(f'.part-{path.name}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        fail(f'{path}: not written, what was there is kept ({error}); try another place')
    finally:
        if temporary.exists():
            temporary.unlink()

def progress(items, describe):
    """Yield the items; on a terminal, each second a line tells how many, and how long yet."""
    start = shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if sys.stderr.isatty() and time.monotonic() > shown + 1:
            shown = time.monotonic()
            left = (shown - start) / count * (len(items) - count) / 60
            line = f'{count} of {len(items)}, {left:.1f} min left, {describe()}'
            print(f'{line:79.79}', end='\r', file=sys.stderr, flush=True)

def read(file):
    """Yield a TFRecord file's records (bytes) or an IDX file's arrays (H, W), up to any cut-off.
    TFRecord (tensorflow.org/tutorials/load_data/tfrecord): length, 8 bytes; checksum, 4, which is
    not verified here; data; checksum, 4. IDX (yann.lecun.com/exdb/mnist): 0x803, N, H, W in 4 bytes
    each, pixels; labels are 0x801."""
    ending = file.suffix.lower()
    try:
        stream = gzip.open(file) if ending == '.gz' else io.BytesIO(file.read_bytes())
        while ending in RECORDS and (head := stream.read(12)):
            record = stream.read(int.from_bytes(head[:8], 'little'))
            yield record if len(stream.read(4)) == 4 else b''
        if stream.read(4) == b'\0\0\x08\x03':
            _, height, width = np.frombuffer(stream.read(12), '>u4').tolist()
            while pixels := stream.read(height * width):
                yield np.frombuffer(pixels, np.uint8).reshape(height, width)
    except Exception:                       # unreadable, cut off, or not the gzip it says it is
        yield b''                           # which decode() finds broken

def fields(message, number, *further):
    """Yield the contents of a protocol buffer's fields of this number, or of `further` ones inside.
    A field (protobuf.dev/programming-guides/encoding) is a byte, number << 3 | 2 (which is for: has
    a length); the length, 7 bits a byte, lowest first, top bit set if more follow; the content."""
    at = 0
    while at < len(message):
        start = next(i for i in range(at + 2, at + 12) if message[i - 1] < 128)
        end = start + sum((byte & 127) << 7 * i for i, byte in enumerate(message[at + 1:start]))
        if message[at] >> 3 == number:
            yield from fields(message[start:end], *further) if further else [message[start:end]]
        at = end

def decode(source, channels=None, size=None):
    """(picture (H, W, C) uint8, (width, height, mode) of the file) of a Path or of what read()
    yields; None if broken. Upright, transparency on white. Channels: 3, for IDX 1. The shorter side
    is resized to size (antialiased; default 72, for IDX 32) and the middle cut out; 0 keeps all."""
    with suppress(Exception):                         # decoders raise all sorts of things
        gray = isinstance(source, np.ndarray)
        size = (32 if gray else 72) if size is None else size
        if isinstance(source, bytes):
            # tf.train.Example{1: Features{1: entry{1: key, 2: Feature{1: BytesList{1: value}}}}}
            entry = next(entry for entry in fields(source, 1, 1)
                         if next(fields(entry, 1)) in (b'image', b'image/encoded'))
            source = io.BytesIO(next(fields(entry, 2, 1, 1)))
        image = Image.fromarray(source) if gray else Image.open(source)
        form = *image.size, image.mode
        # a JPEG much larger is decoded at 1/2, 1/4 or 1/8, which is fast but coarse
        image.draft(None, (3 * size, 3 * size) if size else image.size)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith('I'):                # 16 bits: convert() would clip, not scale
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new('RGBA', image.size, 'white')
            image = Image.alpha_composite(white, image.convert('RGBA'))
        image = image.convert('L' if channels == 1 or gray and not channels else 'RGB')
        image = ImageOps.fit(image, (size, size) if size else image.size, Image.LANCZOS)
        return np.atleast_3d(image), form

def pictures(path, channels=None, size=None):
    """Yield (name, picture) of all that is in `path`, in order, decoded by several threads; at last
    tell what there was. Of a folder: all below it, hidden files aside, that are pictures, or if
    there are none TFRecords, or else IDX files. Ends the program if none can be read."""
    files = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names
                   if f'{os.sep}.' not in os.path.join(folder, name)[len(str(path)):]) or [path]
    chosen = ([file for file in files if file.suffix.lower() in PICTURES]
              or [file for file in files if file.suffix.lower() in RECORDS] or files)
    forms, folders, broken = set(), Counter(), []
    items = ((file, i, source) for file in progress(chosen, lambda: f'reading {path}')
             for i, source in enumerate([file] if file.suffix.lower() in PICTURES else read(file)))
    with ThreadPoolExecutor() as pool:
        while portion := list(islice(items, 16)):         # so that memory does not grow with N
            decoded = pool.map(lambda item: decode(item[2], channels, size), portion)
            for (file, i, source), result in zip(portion, decoded):
                name = os.path.relpath(file, path if path.is_dir() else path.parent)
                if result:
                    forms.add(result[1])
                    folders[os.path.dirname(name)] += 1
                    yield name if source is file else f'{name}/{i:05d}', result[0]
                else:
                    broken.append(name)
    if not forms:
        fail(f'{path}: {"no picture to read" if path.exists() else "not there"}; give a folder of '
             'pictures, TFRecords or IDX files; Monets: www.kaggle.com/c/gan-getting-started/data')
    print(f'{path}: {folders.total()} pictures from {min(forms)[:2]} to {max(forms)[:2]} pixels, '
          f'{sorted({mode for *_, mode in forms})}; passed over: {len(files) - len(chosen)} other '
          f'files, {len(broken)} broken {broken[:5]}')
    for folder, count in folders.items() if len(folders) > 1 else ():
        print(f'{count:8d} {"#" * (50 * count // max(folders.values()))} {folder!r}')
    if len(chosen) > 1.5 * len({file.name for file in chosen}):
        print(f'{path}: names come twice; if the pictures do, as in images/ and resized/, give one')

def load(path=None, size=None, channels=None, dabs=True):
    """All pictures of `path`, or with no path toy scenes, as one array (N, size, size, C) uint8."""
    if not path:
        return toy_scenes(320, size or 64, dabs)[..., :channels]
    pixels = bytearray()
    for _, picture in pictures(Path(path), channels, size):
        pixels += picture.tobytes()
    return np.frombuffer(pixels, np.uint8).reshape(-1, *picture.shape)

def toy_scenes(n, size, dabs):
    """n landscapes (n, size, size, 3) uint8, always the same: sky, sun, hills, water and a bank.
    With dabs they are painted: at random points, a stroke of the colour that is there."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:1:size * 1j, 0:1:size * 1j][..., None]           # (size, size, 1) each
    scenes = np.empty((n, size, size, 3), np.uint8)
    for scene in scenes:
        top, low = rng.uniform([[60, 80, 130], [225, 170, 90]], [[130, 140, 210], [255, 230, 220]])
        horizon, sun_x, sun_y, near = rng.uniform((.5, .1, .05, .8), (.65, .9, .25, .95))
        height = horizon - abs(y - horizon)                            # water mirrors the sky
        sun = np.exp(-np.hypot(x - sun_x, height - sun_y) / 0.08)
        colour = top + (low - top) * height / horizon + sun * (200, 160, 60)
        for tall, hill in ((0.18, (100, 130, 150)), (0.08, (70, 105, 80))):
            waves = np.sin(x * rng.uniform((3, 8, 16), (6, 12, 20)) + rng.uniform(0, 6, 3))
            ridge = horizon - tall * (0.5 + waves @ ((0.3,), (0.15,), (0.05,)))
            colour = np.where(height > ridge, hill + 60 * (horizon - height), colour)
        colour = np.where(y < horizon, colour, 0.8 * colour)
        bank = y > near + 0.04 * np.sin(x * rng.uniform(3, 9) + rng.uniform(0, 6))
        colour = np.where(bank, (60, 90, 40), colour).clip(0, 255)
        image = Image.fromarray(colour.astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for i, j in rng.integers(0, size, (12 * size * dabs, 2)):      # row and column
            across, down = size * np.array((0.01, 0.045) if bank[i, j] else (0.045, 0.01))
            hue = tuple((colour[i, j] + rng.normal(0, 6, 3)).astype(int))
            draw.line((j - across, i - down, j + across, i + down), hue, width=size // 20)
        scene[:] = image
    return scenes

def grid(images, columns):
    """Pictures (H, W, C) uint8, of one size, as one such picture: rows of `columns`, 2 px apart."""
    images = np.pad(images, ((0, -len(images) % columns), (0, 2), (0, 2), (0, 0)),
                    constant_values=255)
    return np.vstack([np.hstack(row) for row in np.split(images, len(images) // columns)])[:-2, :-2]

def write(named, path, columns=1):
    """Write (name, picture) pairs in the form that the ending of `path` asks for.
    .png: one grid. .gif: an animation, 12 a second. .zip: JPEGs of 256x256, as Kaggle's contest
    'I'm Something of a Painter Myself' takes them. Anything else: a new folder of PNGs."""
    ending = path.suffix.lower()
    if ending == '.zip':
        with replacing(path) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
            for number, (_, picture) in enumerate(named, start=1):
                image = Image.fromarray(picture.squeeze()).convert('RGB')
                with archive.open(f'{number:05d}.jpg', 'w') as file:
                    ImageOps.fit(image, (256, 256), Image.LANCZOS).save(file, 'JPEG', quality=95)
        if not 7000 <= number <= 10000:
            print(f'{path}: {number} pictures; the contest takes 7,000 to 10,000')
    elif ending in ('.png', '.gif'):
        with replacing(path) as temporary:
            images = [picture for _, picture in named]
            images = [grid(images, columns)] if ending == '.png' else images
            images = [Image.fromarray(image.squeeze()) for image in images]
            if ending == '.gif':           # or save() would look for its colours 20 times as long
                images = [image.quantize(method=Image.Quantize.FASTOCTREE) for image in images]
            first, *rest = images
            first.save(temporary, save_all=bool(rest), append_images=rest, duration=83, loop=0)
    elif path.exists() or ending in PICTURES:
        fail(f'{path}: give a folder that is not there yet, or .png, .gif or .zip')
    else:
        for name, picture in named:
            file = (path / name).with_suffix('.png')
            write([(name, picture)], path / f'{name}.png' if file.exists() else file)

def main():
    """Explore the paths of the command line, and make a sheet of 10 pictures of each."""
    sheet = [named for path in sys.argv[1:] or fail('give folders, TFRecord or IDX files')
             for i, named in enumerate(pictures(Path(path), channels=3, size=128)) if i < 10]
    write(sheet, Path('out/data.png'), columns=10)
    print('out/data.png')

if __name__ == '__main__':
    main()
