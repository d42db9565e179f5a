"""Pictures in and out: folders, TFRecords, IDX files or toy scenes in; grids, GIFs, zips out.

    python data.py monet_jpg photo_jpg         tells what is there and makes a sheet, out/data.png

A set of pictures is one uint8 array (N, H, W, C), with C = 3 (RGB) or, from IDX files, 1 (gray).
"""
import argparse
import gzip
import io
import mmap
import os
import shutil
import struct
import sys
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

ENDINGS = {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif'}


class UserError(Exception):
    """What the user can mend: its message names what was found where and what to try next."""


def command(main):
    """Run main(); a UserError, or what the system refuses, becomes one line and exit code 2."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
        sys.exit(2)


@contextmanager
def replacing(path):
    """Yield a path to write to, which takes the place of `path` only once it is written whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{os.getpid()}-{path.name}')
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def within(kind, low, high=1e9):
    """A type for argparse: a number of the kind, int or float, from low to high."""
    def number(text):
        if not low <= (value := kind(text)) <= high:
            raise argparse.ArgumentTypeError(f'{text} is not from {low} to {high:g}')
        return value
    return number


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UserErrors."""

    def error(self, message):
        raise UserError(f'{message}; --help lists the options')


def progress(items, describe):
    """Yield the items; on a terminal, after a second, a line tells how many and how long yet."""
    start = shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - start > 1 and now - shown > 0.5 and sys.stderr.isatty():
            left, shown = (now - start) / count * (len(items) - count), now
            line = f'{count}/{len(items)}, {timedelta(seconds=int(left))} left, {describe()}'
            print('\r' + line[:shutil.get_terminal_size().columns - 1], end='\x1b[K', file=sys.stderr)
    if start != shown:
        print(file=sys.stderr)


def find(path):
    """List what `path` holds: ([(name, open)], mode, others), where open() gives a PIL Image.

    A folder is searched with all below it, but for hidden files: for picture files, or if there
    are none for TFRecords, or else IDX files. Mode is 'L' for IDX files, 'RGB' for the others;
    others are the files passed over. UserError if there is no such path.
    """
    if not (path := Path(path)).exists():
        raise UserError(f'{path}: no such file or folder; name one with pictures (Kaggle has the '
                        'Monets at kaggle.com/competitions/gan-getting-started/data)')
    root = path if path.is_dir() else path.parent
    files = [path] if root != path else sorted(
        Path(folder, name) for folder, _, names in os.walk(path) for name in names
        if not f'/{Path(folder, name).relative_to(path).as_posix()}'.count('/.'))
    for endings, mode, read in ((ENDINGS, 'RGB', lambda file: [partial(Image.open, file)]),
                                ({'.tfrec', '.tfrecord'}, 'RGB', read_tfrecord),
                                ({'.gz', '', *(f.suffix for f in files)}, 'L', read_idx)):
        chosen = [file for file in files if file.suffix.lower() in endings]
        found = [(f'{file.relative_to(root)}' + f'-{i:05d}' * (i > 0), opener)
                 for file in chosen for i, opener in enumerate(read(file))]
        if found:
            break
    folders = {}
    for name, _ in found:
        folders.setdefault(Path(name).name, set()).add(Path(name).parts[0])
    twins = [' and '.join(sorted(tops)) for tops in folders.values() if len(tops) > 1]
    if len(twins) > len(folders) / 2:
        print(f'{path}: {len(twins)} file names are both in {twins[0]}; if these are the same '
              'pictures, give one of the two folders instead', file=sys.stderr)
    return found, mode, len(files) - len(chosen)


def read_tfrecord(path):
    """List the pictures of a TFRecord file: each record is a tf.train.Example with an 'image'.

    The framing (tensorflow.org/tutorials/load_data/tfrecord): length, 8 bytes; its checksum, 4,
    not verified here; the data; its checksum, 4. The file is mapped, so that pictures that are
    not being decoded take no memory.
    """
    openers, at, size = [], 0, path.stat().st_size
    with open(path, 'rb') as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b'')
    while at + 12 <= size and (end := at + 12 + struct.unpack_from('<Q', data, at)[0]) + 4 <= size:
        openers.append(partial(open_example, data[at + 12:end]))
        at = end + 4
    if at < size:
        print(f'{path}: cut off; {len(openers)} whole pictures come before that', file=sys.stderr)
    return openers


def open_example(message):
    """The Image in a tf.train.Example { Features { map<string, Feature> } }, memoryview `message`.

    A Feature is one of three lists, a BytesList being its field 1 and having its values as field 1.
    A map is a repeated message of key, field 1, and value, field 2.
    """
    for _, features in fields(message):
        for _, entry in fields(features):
            entry = dict(fields(entry))
            if bytes(entry[1]) in (b'image', b'image/encoded'):
                return Image.open(io.BytesIO(dict(fields(dict(fields(entry[2]))[1]))[1]))
    raise ValueError('no feature is called image')


def fields(message):
    """Yield (number, content) for each field of a protocol buffer whose fields all have a length.

    Before the content stand a byte, number << 3 | 2, and the length as a varint: 7 bits a byte,
    the lowest first, with the top bit set while more follow (protobuf.dev/programming-guides).
    """
    at = 0
    while at < len(message):
        number, kind = divmod(message[at], 8)
        length = shift = 0
        more = True
        while more:
            at += 1
            length |= (message[at] & 127) << shift
            shift += 7
            more = message[at] > 127
        if kind != 2 or at + 1 + length > len(message):
            raise ValueError('not a tf.train.Example')
        yield number, message[at + 1:at + 1 + length]
        at += 1 + length


def read_idx(path):
    """List the pictures of an IDX file (yann.lecun.com/exdb/mnist), compressed by gzip or not.

    It is four big-endian numbers, 0x803, N, H, W, then the pixels. Other files, such as those of
    labels (0x801), list none; a file that is cut off lists its whole pictures.
    """
    try:
        with (gzip.open if path.suffix == '.gz' else open)(path, 'rb') as file:
            magic, n, height, width = struct.unpack('>4I', file.read(16))
            pixels = np.frombuffer(file.read() if magic == 0x803 else b'', np.uint8)
    except (OSError, EOFError, struct.error):
        return []
    n = min(n, len(pixels) // max(1, height * width))
    pixels = pixels[:n * height * width].reshape(n, height, width)
    return [partial(Image.fromarray, picture) for picture in pixels]


def pictures(found, mode, size=None):
    """Yield (name, picture) for each (name, open) of find(), decoded in order by several threads.

    A picture is (H, W, C) uint8, or the exception that a broken file raised. Upright, transparency
    on white. With a size, its shorter side is resized to it (antialiased) and the middle cut out.
    """
    def decode(item):
        name, opener = item
        try:
            image = opener()
            if size:
                image.draft(None, (size, size))        # JPEG: decodes at 1/2, 1/4 or 1/8
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith('I'):             # 16 bits: convert() would clip, not scale
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert('RGBA')
                image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
            image = image.convert(mode)
            if size:
                image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            return name, np.asarray(image).reshape(image.height, image.width, len(mode))
        except Exception as error:                     # decoders raise all sorts of things
            return name, error

    with ThreadPoolExecutor() as pool:
        for at in progress(range(0, len(found), 64), lambda: 'reading pictures'):
            yield from pool.map(decode, found[at:at + 64])   # 64: memory does not grow with N


def load(path=None, size=None, channels=None):
    """All pictures of `path` as (N, size, size, C) uint8; default 64 px RGB, for IDX files 32 gray.

    Broken pictures are passed over and named; UserError if there is none left. With no path, 300
    toy paintings.
    """
    if not path:
        return toy_scenes(300, size or 64, dabs=True)
    found, mode, others = find(path)
    size = size or (64 if mode == 'RGB' else 32)
    mode = {None: mode, 1: 'L', 3: 'RGB'}[channels]
    array, kept, broken = np.empty((len(found), size, size, len(mode)), np.uint8), 0, []
    for name, picture in pictures(found, mode, size):
        if isinstance(picture, Exception):
            broken.append(repr(name))
        else:
            array[kept] = picture
            kept += 1
    if broken:
        print(f'{path}: passed over {len(broken)} of {len(found)} pictures, which cannot be read: '
              + ', '.join(broken[:5]) + ', ...' * (len(broken) > 5), file=sys.stderr)
    if not kept:
        raise UserError(f'{path}: no readable picture among {len(broken) + others} files; name a '
                        'folder of pictures, or .tfrec or IDX files')
    return array[:kept]


def toy_scenes(n, size, dabs):
    """n landscapes (n, size, size, 3) uint8, always the same: sky, sun, hills, water and a bank.

    With dabs they are painted: each point that is picked puts down a stroke of its colour.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:1:size * 1j, 0:1:size * 1j][..., None]           # (size, size, 1) each
    skies = np.array([[[70, 120, 200], [225, 225, 210]], [[90, 70, 130], [250, 170, 100]],
                      [[120, 150, 190], [250, 205, 190]], [[50, 90, 150], [245, 225, 150]]])
    scenes = np.empty((n, size, size, 3), np.uint8)
    for scene in scenes:
        top, low = skies[rng.integers(4)] + rng.normal(0, 12, (2, 3))
        horizon, sun_x, sun_y, near = rng.uniform((.5, .1, .08, .8), (.65, .9, .4, .95))
        height = np.where(y < horizon, y, 2 * horizon - y) / horizon     # water mirrors the sky
        distance = np.hypot(x - sun_x, height * horizon - sun_y)
        glow = np.exp(-distance / 0.12) + (distance < 0.05)
        colour = top + (low - top) * height.clip(0, 1) + glow * (110, 90, 30)
        colour = np.where(y < horizon, colour, colour * 0.75 + 6 * np.sin(y * size * 1.5))
        for depth, green in ((0.18, (100, 130, 150)), (0.08, (70, 105, 80))):
            phase, waves = rng.uniform(0, 6, 3), np.array((4, 9, 17)) * rng.uniform(0.6, 1.4)
            ridge = horizon - depth * (0.5 + np.sin(x * waves + phase) @ (0.3, 0.15, 0.05))[..., None]
            colour = np.where((y > ridge) & (y < horizon), np.array(green) + 60 * (horizon - y), colour)
        bank = y > near + 0.04 * np.sin(x * rng.uniform(3, 9) + rng.uniform(0, 6))
        colour = np.where(bank, (60, 90, 40) + rng.normal(0, 25, (size, size, 1)), colour)
        scene[:] = colour.clip(0, 255)
        if dabs:
            picture = Image.fromarray(scene)
            canvas = picture.filter(ImageFilter.GaussianBlur(size / 20)).resize((2 * size, 2 * size))
            draw, long = ImageDraw.Draw(canvas), size * np.array((0.09, 0.02))
            for column, row in rng.integers(0, size, (12 * size, 2)):
                along = long[::-1] if bank[row, column] else long        # grass stands upright
                ends = 2 * np.array((column, row)) + np.array(((-1,), (1,))) * along
                hue = tuple((scene[row, column] + rng.normal(0, 14, 3)).astype(int))
                draw.line([*ends.ravel()], fill=hue, width=max(2, size // 16))
            scene[:] = canvas.resize((size, size), Image.Resampling.BOX)
    return scenes


def grid(images, columns):
    """Pictures (N, H, W, C) uint8 in rows of so many columns on one PIL Image, 2 px apart."""
    images = np.stack([*images])
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows, height + 2, columns, width + 2, 3), 255, np.uint8)
    for i, image in enumerate(images):
        sheet[i // columns, :-2, i % columns, :-2] = image
    return Image.fromarray(sheet.reshape(rows * (height + 2), -1, 3)[:-2, :-2])


def write(named, path, columns):
    """Write (name, uint8 picture) pairs in the form that the ending of `path` asks for.

    .png: one grid. .gif: an animation, 12 pictures a second. .zip: JPEGs of 256x256, the form of
    Kaggle's 'I'm Something of a Painter Myself'. Anything else: a new folder of PNGs.
    """
    path, ending = Path(path), Path(path).suffix.lower()
    if ending == '.png':
        with replacing(path) as temporary:
            grid([picture for _, picture in named], columns).save(temporary)
    elif ending == '.gif':
        frames = [Image.fromarray(picture) for _, picture in named]
        with replacing(path) as temporary:
            frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=83, loop=0)
    elif ending == '.zip':
        with replacing(path) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
            for name, picture in named:
                image = Image.fromarray(picture).convert('RGB')
                image = ImageOps.fit(image, (256, 256), Image.Resampling.LANCZOS)
                with archive.open(f'{Path(name).stem}.jpg', 'w') as file:
                    image.save(file, 'JPEG', quality=95)
    else:
        if path.exists() and (path.is_file() or any(path.iterdir())):
            raise UserError(f'{path}: already there; give a new folder, .png, .gif or .zip')
        for name, picture in named:
            file = (path / name).with_suffix('.png')
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)


