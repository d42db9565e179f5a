"""Pictures in and out: folders, TFRecords, IDX files or toy scenes in; grids, GIFs, zips out.

    python data.py monet_jpg photo_jpg          tells what is there; a sheet of it: out/data.png

A set of pictures is one uint8 array (N, H, W, C), with C = 3 (RGB) or, from IDX files, 1 (gray).
"""
import argparse
import gzip
import io
import os
import sys
import time
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

PICTURES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif')
RECORDS = ('.tfrec', '.tfrecord')

class UserError(Exception):
    """What the user can mend: its message names what was found where, and what to try next."""

def command(main):
    """Run main(). A UserError, or what the system refuses, becomes one line and exit code 2."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

def within(kind, low, high=1e9):
    """A type for argparse: numbers of the kind, int or float, from low to high."""
    def number(text):
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f'{text} is not from {low} to {high:g}')
        return kind(text)
    return number

@contextmanager
def replacing(path):
    """Yield a path to write to; it takes the place of `path` only once it is written whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{os.getpid()}-{path.name}')
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

def progress(items, describe):
    """Yield the items; on a terminal, after a second, a line tells how many, and how long yet."""
    start = shown = time.monotonic()
    try:
        for count, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if sys.stderr.isatty() and now > max(start + 1, shown + 0.3):
                left, shown = (now - start) / count * (len(items) - count) / 60, now
                line = f'{count} of {len(items)}, {left:.1f} min left, {describe()}'
                line = line[:(os.get_terminal_size(2).columns or 80) - 1]
                print(f'\r{line}\x1b[K', end='', file=sys.stderr, flush=True)
    finally:
        if shown > start:
            print(file=sys.stderr)

def find(path):
    """(files, others): the files of pictures in `path`, and how many files are something else.

    All below a folder, hidden ones aside: pictures, or if there are none TFRecords, or else IDX.
    """
    if not path.exists():
        raise UserError(f'{path}: no such file or folder; give one with pictures (for the Monets '
                        'see https://www.kaggle.com/competitions/gan-getting-started/data)')
    files = [path] if path.is_file() else sorted(
        Path(folder, name) for folder, _, names in os.walk(path) for name in names
        if '/.' not in os.path.join(folder, name)[len(str(path)):])
    for endings in (PICTURES, RECORDS, ''):
        chosen = [file for file in files if file.name.lower().endswith(endings)]
        if chosen:
            break
    names = {file.name for file in chosen}
    if len(chosen) > 1.5 * len(names):
        print(f'{path}: {len(chosen)} files of {len(names)} names; if it holds the same pictures '
              'twice, as images/ and resized/ do, give one of its folders', file=sys.stderr)
    return chosen, len(files) - len(chosen)

def read(file):
    """Yield what decode() takes: a picture's Path, a TFRecord's bytes, an IDX file's (H, W) arrays.

    TFRecord (tensorflow.org/tutorials/load_data/tfrecord): length, 8 bytes; checksum, 4, which is
    not verified here; data; checksum, 4. IDX (yann.lecun.com/exdb/mnist): 0x803, N, H, W in 4 bytes
    each, pixels; labels are 0x801. A file that was cut off yields what comes before the cut.
    """
    ending = file.suffix.lower()
    if ending in PICTURES:
        yield file
        return
    try:
        with (gzip.open if ending == '.gz' else open)(file, 'rb') as stream:
            left = file.stat().st_size
            while ending in RECORDS and left > 0:
                length = int.from_bytes(stream.read(12)[:8], 'little')
                left -= 16 + length
                yield stream.read(length + 4)[:-4] if left >= 0 else b''
            if stream.read(4) == b'\0\0\x08\x03':
                n, height, width = np.frombuffer(stream.read(12), '>u4').tolist()
                for _ in range(n if height * width < 2 ** 24 else 0):
                    picture = np.frombuffer(stream.read(height * width), np.uint8)
                    yield picture.reshape(height, width)
    except (OSError, EOFError, ValueError, zlib.error):      # cut off, unreadable, or not gzip
        yield b''                                            # which decode() calls broken

def read_example(example):
    """The picture in a tf.train.Example { 1: Features { 1: map } }, where an entry of the map is
    { 1: key, 2: Feature { 1: BytesList { 1: value } } }: protocol buffers all the way down.
    """
    def fields(message):
        # A byte, number << 3 | 2 (which is for: has a length); the length, 7 bits a byte, lowest
        # first, top bit set if more follow; the content. protobuf.dev/programming-guides/encoding
        at = 0
        while at < len(message):
            number, length, shift, more = message[at] >> 3, 0, 0, True
            while more:
                at += 1
                length |= (message[at] & 127) << shift
                shift, more = shift + 7, message[at] > 127
            yield number, message[at + 1:at + 1 + length]
            at += 1 + length

    features = (dict(fields(entry)) for _, entry in fields(dict(fields(example))[1]))
    feature = next(entry[2] for entry in features if entry[1] in (b'image', b'image/encoded'))
    return io.BytesIO(dict(fields(dict(fields(feature))[1]))[1])

def decode(source, mode=None, size=None):
    """(picture (H, W, C) uint8, format) of what read() yields; (the error, None) if it is broken.

    Upright, transparency on white. Mode: 'RGB', 'L' (default for IDX). Size: the shorter side is
    resized to it (antialiased; default 64, for IDX 32) and the middle cut out; 0 keeps all.
    """
    try:
        if isinstance(source, np.ndarray):
            image, mode, size = Image.fromarray(source), mode or 'L', 32 if size is None else size
        else:
            image = Image.open(read_example(source) if isinstance(source, bytes) else source)
            mode, size = mode or 'RGB', 64 if size is None else size
        form = image.mode, *image.size
        if size:      # a JPEG much larger is decoded at 1/2, 1/4 or 1/8, which is fast but coarse
            image.draft(None, (3 * size, 3 * size))
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith('I'):                # 16 bits: convert() would clip, not scale
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
        image = image.convert(mode)
        if size:
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(image.height, image.width, len(mode)), form
    except Exception as error:                        # decoders raise all sorts of things
        return error, None

def pictures(path, mode=None, size=None):
    """Yield (name, picture, format) for all in `path`, in order, decoded by several threads.

    Broken ones are named; UserError if there are no others.
    """
    (files, others), broken, good = find(path), [], 0
    root = path if path.is_dir() else path.parent
    sources = ((f'{file.relative_to(root)}' + f'/{i:05d}' * (source is not file), source)
               for file in progress(files, lambda: f'reading {path}')
               for i, source in enumerate(read(file)))
    with ThreadPoolExecutor() as pool:
        while portion := list(islice(sources, 16)):       # so that memory does not grow with N
            decoded = pool.map(lambda item: decode(item[1], mode, size), portion)
            for (name, _), (picture, form) in zip(portion, decoded):
                if form:
                    yield name, picture, form
                    good += 1
                else:
                    broken.append(repr(name))
    if not good:
        raise UserError(f'{path}: none of its {len(files) + others} files is a picture that can be '
                        'read; give a folder of pictures, TFRecords or IDX files')
    if broken:
        print(f'{path}: {len(broken)} pictures cannot be read and are passed over: '
              f'{", ".join(broken[:5])}{", ..." * (len(broken) > 5)}', file=sys.stderr)

def load(path=None, size=None, channels=None, dabs=True):
    """All pictures of `path`, or with no path toy scenes, as one array (N, size, size, C) uint8."""
    if not path:
        return toy_scenes(300, size or 64, dabs)[..., :channels]
    pixels = bytearray()
    for _, picture, _ in pictures(Path(path), {1: 'L', 3: 'RGB'}.get(channels), size):
        pixels += picture.tobytes()
    return np.frombuffer(pixels, np.uint8).reshape(-1, *picture.shape)

def toy_scenes(n, size, dabs):
    """n landscapes (n, size, size, 3) uint8, always the same: sky, sun, hills, water and a bank.

    With dabs they are painted: at random points, a stroke of the colour that is there.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:1:size * 1j, 0:1:size * 1j][..., None]           # (size, size, 1) each
    skies = np.array([[[70, 120, 200], [225, 225, 210]], [[90, 70, 130], [250, 170, 100]],
                      [[120, 150, 190], [250, 205, 190]], [[50, 90, 150], [245, 225, 150]]])
    scenes = np.empty((n, size, size, 3), np.uint8)
    for scene in scenes:
        top, low = skies[rng.integers(4)] + rng.normal(0, 12, (2, 3))
        horizon, sun_x, sun_y, near = rng.uniform((.5, .1, .08, .8), (.65, .9, .4, .95))
        height = np.where(y < horizon, y, 2 * horizon - y) / horizon    # water mirrors the sky
        distance = np.hypot(x - sun_x, height * horizon - sun_y)
        glow = np.exp(-distance / 0.12) + (distance < 0.05)
        colour = top + (low - top) * height.clip(0, 1) + glow * (110, 90, 30)
        colour = np.where(y < horizon, colour, colour * 0.75 + 6 * np.sin(y * size * 1.5))
        for tall, hill in ((0.18, (100, 130, 150)), (0.08, (70, 105, 80))):
            waves = np.sin(x * (4, 9, 17) * rng.uniform(0.6, 1.4) + rng.uniform(0, 6, 3))
            ridge = horizon - tall * (0.5 + waves @ ((0.3,), (0.15,), (0.05,)))
            colour = np.where((y > ridge) & (y < horizon), hill + 60 * (horizon - y), colour)
        bank = y > near + 0.04 * np.sin(x * rng.uniform(3, 9) + rng.uniform(0, 6))
        scene[:] = np.where(bank, (60, 90, 40) + rng.normal(0, 25, y.shape), colour).clip(0, 255)
        if dabs:
            canvas = Image.fromarray(scene).filter(ImageFilter.GaussianBlur(size / 20))
            draw = ImageDraw.Draw(canvas := canvas.resize((2 * size, 2 * size)))
            for i, j in rng.integers(0, size, (12 * size, 2)):          # row and column
                reach = size * np.array((0.02, 0.09) if bank[i, j] else (0.09, 0.02))
                ends = (*((2 * j, 2 * i) - reach), *((2 * j, 2 * i) + reach))
                hue = (scene[i, j] + rng.normal(0, 14, 3)).astype(int)
                draw.line(ends, fill=tuple(hue), width=max(2, size // 16))
            scene[:] = canvas.resize((size, size), Image.Resampling.BOX)
    return scenes

def grid(images, columns):
    """Pictures (H, W, C) uint8, of one size, as one such picture: rows of `columns`, 2 px apart."""
    images = np.pad(np.stack(images), ((0, -len(images) % columns), (0, 2), (0, 2), (0, 0)),
                    constant_values=255)
    rows = np.split(images, len(images) // columns)
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])[:-2, :-2]

def write(named, path, columns=1):
    """Write (name, picture) pairs in the form that the ending of `path` asks for.

    .png: one grid. .gif: an animation, 12 a second. .zip: JPEGs of 256x256, as Kaggle's contest
    'I'm Something of a Painter Myself' takes them. Anything else: a new folder of PNGs.
    """
    ending = path.suffix.lower()
    if ending == '.png':
        named = [('grid', grid([picture for _, picture in named], columns))]
    images = ((name, Image.fromarray(picture.squeeze())) for name, picture in named)
    if ending not in ('.png', '.gif', '.zip'):
        if path.exists() or ending in PICTURES:
            raise UserError(f'{path}: give a folder that is not there yet, or .png, .gif or .zip')
        for name, image in images:
            file = path / f'{os.path.splitext(name)[0]}.png'
            file = path / f'{name}.png' if file.exists() else file      # of a.jpg and a.png, say
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        return
    with replacing(path) as temporary:
        if ending == '.zip':
            with zipfile.ZipFile(temporary, 'w') as archive:
                for number, (_, image) in enumerate(images, start=1):
                    image = ImageOps.fit(image.convert('RGB'), (256, 256), Image.Resampling.LANCZOS)
                    with archive.open(f'{number:05d}.jpg', 'w') as file:
                        image.save(file, 'JPEG', quality=95)
            if not 7000 <= number <= 10000:
                print(f'{path}: {number} pictures; the contest takes 7,000 to 10,000',
                      file=sys.stderr)
        else:
            first, *rest = [image for _, image in images]
            first.save(temporary, save_all=bool(rest), append_images=rest, duration=83, loop=0)

def main():
    """Explore the paths of the command line: counts, sizes, modes, and a sheet of 10 of each."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__.splitlines()[0])
    parser.add_argument('paths', nargs='+', type=Path, help='folders, TFRecord or IDX files')
    sheet = []
    for path in parser.parse_args().paths:
        folders, modes, sizes, thumbs = Counter(), Counter(), [], []
        for name, picture, (mode, width, height) in pictures(path, 'RGB', size=128):
            folders[os.path.dirname(name)] += 1
            modes[mode] += 1
            sizes.append((width, height))
            thumbs = (thumbs + [picture])[:10]
        print(f'{path}: {len(sizes)} pictures, from {min(sizes)} to {max(sizes)} pixels, modes '
              f'{dict(modes)}, {find(path)[1]} other files passed over')
        for folder, count in folders.items():
            print(f'{count:8d} {"#" * (50 * count // max(folders.values()))} {folder!r}')
        sheet += thumbs
    write(enumerate(sheet), Path('out/data.png'), columns=10)
    print('out/data.png')

if __name__ == '__main__':
    command(main)
