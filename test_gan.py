"""Tests of the program, with nothing but the standard library's unittest.

    python test_gan.py

They make their own tiny pictures, run on the CPU, and take under a minute.
"""
import contextlib
import gzip
import io
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import binary_cross_entropy, interpolate

import data
import gan
import sample
import train

HERE = Path(__file__).resolve().parent
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)

def dcgan(size=32, channels=3, width=8, upsample='resize'):
    torch.manual_seed(0)
    return gan.DCGAN(size, channels, width, upsample)

def cyclegan(size=32, width=4, blocks=1, upsample='resize'):
    torch.manual_seed(0)
    return gan.CycleGAN(size, 3, width, blocks, upsample)

def adam(model):
    return [torch.optim.Adam(nets.parameters(), lr=1e-3)
            for nets in (model.discriminators, model.generators)]

def shapes(net, x):
    """The shape after each layer of a Sequential, for a picture or z."""
    result = []
    for layer in net:
        x = layer(x)
        result.append(tuple(x.shape[1:]))
    return result

def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()

class Folder(unittest.TestCase):
    """A test in an empty folder of its own, which is the current one meanwhile."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder.name)
        for name in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, name, signal.getsignal(name))

    def save(self, name, n=1):
        for i in range(n):
            path = Path(name.format(i))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(PHOTO, i, axis=1)).save(path)

    def run_main(self, main, *arguments):
        """(exit code, standard output and error) of a main() with these arguments."""
        text, before = io.StringIO(), sys.argv
        sys.argv = ['program', *map(str, arguments)]
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            try:
                data.command(main)
                code = 0
            except SystemExit as stop:
                code = stop.code
        sys.argv = before
        return code, text.getvalue()

class Losses(unittest.TestCase):
    def test_equations_by_hand_and_against_binary_cross_entropy(self):
        self.assertAlmostEqual(gan.discriminator_loss(torch.zeros(2), torch.zeros(2)).item(),
                               2 * math.log(2), places=6)
        real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
        one, zero = torch.ones(2), torch.zeros(2)
        oracle = (binary_cross_entropy(real.sigmoid(), one)
                  + binary_cross_entropy(fake.sigmoid(), zero))
        torch.testing.assert_close(gan.discriminator_loss(real, fake), oracle)
        torch.testing.assert_close(gan.generator_loss(fake), binary_cross_entropy(fake.sigmoid(), one))

    def test_generator_learns_most_where_D_is_sure(self):
        logit = torch.tensor([-20.0], requires_grad=True)
        gan.generator_loss(logit).backward()
        self.assertAlmostEqual(logit.grad.item(), -1, places=4)      # the minimax one's is 0 there
        self.assertTrue(gan.generator_loss(torch.tensor([-1e4])).isfinite())

    def test_cyclegan_losses_by_hand(self):
        model = cyclegan()
        for net in (*model.generators, *model.discriminators):
            net.forward = lambda x: x / 2
        x, y = torch.full((1, 3, 32, 32), 0.8), torch.full((1, 3, 32, 32), 0.4)
        fakes = model.generate([x, y])
        _, figures = model.loss_D([x, y], fakes)
        # D_Y(y) = 0.2 and D_Y(G(x)) = 0.2; D_X(x) = 0.4 and D_X(F(y)) = 0.1
        self.assertAlmostEqual(figures['loss_D_Y'].item(), (0.8 ** 2 + 0.2 ** 2) / 2, places=5)
        self.assertAlmostEqual(figures['loss_D_X'].item(), (0.6 ** 2 + 0.1 ** 2) / 2, places=5)
        loss, figures = model.loss_G([x, y], fakes)
        self.assertAlmostEqual(figures['loss_G'].item(), 0.8 ** 2, places=5)
        self.assertAlmostEqual(figures['loss_F'].item(), 0.9 ** 2, places=5)
        self.assertAlmostEqual(figures['loss_cycle'].item(), 0.6 + 0.3, places=5)
        self.assertAlmostEqual(figures['loss_identity'].item(), 0.4 + 0.2, places=5)
        self.assertAlmostEqual(loss.item(), 0.64 + 0.81 + 10 * 0.9 + 5 * 0.6, places=4)

class Networks(unittest.TestCase):
    def test_shapes_are_those_in_the_comments(self):
        model = gan.DCGAN(64, 3, 64, 'resize')
        G = shapes(model.generators[0], torch.zeros(2, 100))
        D = shapes(model.discriminators[0], torch.zeros(2, 3, 64, 64))
        expected = [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32)]
        self.assertEqual(list(dict.fromkeys(G)), [(100, 1, 1), *expected, (3, 64, 64)])
        self.assertEqual(list(dict.fromkeys(D)), [*expected[::-1], (1, 1, 1)])
        patch = gan.CycleGAN(256, 3, 64, 0, 'resize').discriminators[0]
        self.assertEqual(list(dict.fromkeys(shapes(patch, torch.zeros(1, 3, 256, 256)))),
                         [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 31, 31), (1, 30, 30)])
        G = shapes(cyclegan(width=64).generators[0], torch.zeros(1, 3, 32, 40))
        self.assertEqual(list(dict.fromkeys(G)), [(64, 32, 40), (128, 16, 20), (256, 8, 10),
                                                  (128, 16, 20), (64, 32, 40), (3, 32, 40)][:3]
                         + [(3, 32, 40)])

    def test_every_size_and_number_of_channels(self):
        for size in gan.SIZES:
            for channels in (1, 3):
                for upsample in ('resize', 'transposed'):
                    model = dcgan(size, channels, 2, upsample)
                    fake = model.generate([torch.zeros(2, channels, size, size)])
                    self.assertEqual(fake.shape, (2, channels, size, size))
                    self.assertEqual(model.discriminators[0](fake).numel(), 2)

    def test_the_five_guidelines_of_the_dcgan_paper(self):
        model = dcgan(64, upsample='transposed')
        G, D = list(model.generators[0]), list(model.discriminators[0])
        for net in (G, D):           # strided convolutions, no pooling; no fully connected layers
            kinds = {type(layer) for layer in net}
            self.assertLessEqual(kinds, {nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU,
                                         nn.LeakyReLU, nn.Tanh, nn.Unflatten, nn.Identity})
        self.assertTrue(all(layer.stride == (2, 2) for layer in G[4:] if hasattr(layer, 'stride')))
        self.assertTrue(all(layer.stride == (2, 2) for layer in D[:-1] if hasattr(layer, 'stride')))
        for net, first, last in ((G, 1, len(G) - 2), (D, 0, len(D) - 1)):    # where BatchNorm is
            for i, layer in enumerate(net):
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                    bare = i == last or (net is D and i == first)
                    self.assertEqual(isinstance(net[min(i + 1, last)], nn.BatchNorm2d), not bare)
                    self.assertEqual(layer.bias is not None, bare)
        self.assertEqual([type(a) for a in G if isinstance(a, (nn.ReLU, nn.Tanh, nn.LeakyReLU))],
                         [nn.ReLU] * 4 + [nn.Tanh])
        self.assertTrue(all(layer.negative_slope == 0.2 for layer in D if hasattr(layer, 'negative_slope')))
        self.assertFalse(any(isinstance(layer, nn.ReLU) for layer in D))
        big = [p for m in gan.DCGAN(64, 3, 32, 'transposed').modules() for p in [getattr(m, 'weight', None)]
               if p is not None and p.dim() == 4 and p.numel() > 10000]
        for weight in big:
            self.assertAlmostEqual(weight.std().item(), 0.02, delta=0.001)

    def test_the_patch_is_70_pixels(self):
        seen, jump = 1, 1
        for layer in cyclegan().discriminators[0]:
            if isinstance(layer, nn.Conv2d):
                seen += (layer.kernel_size[0] - 1) * jump
                jump *= layer.stride[0]
        self.assertEqual(seen, 70)

    def test_the_default_up_sampling_prints_no_grid(self):
        def grid_power(upsample):
            torch.manual_seed(0)
            x = torch.ones(1, 64, 16, 16) + 0.1 * torch.randn(1, 64, 16, 16)
            y = torch.stack([gan.doubling(64, 1, upsample)(x)[0, 0, 4:-4, 4:-4] for _ in range(20)])
            power = torch.fft.fft2(y - y.mean((1, 2), keepdim=True)).abs().square().mean(0)
            return (power[12, 0] + power[0, 12] + power[12, 12]) / power.sum()    # period of 2 px
        default = train.read_options([]).upsample
        self.assertLess(grid_power(default), 0.05)
        self.assertGreater(grid_power('transposed'), 0.3)

    def test_instance_norm_and_batching_of_what_shares_weights(self):
        x = torch.randn(2, 5, 8, 8) * 3 + 1
        torch.testing.assert_close(gan.InstanceNorm()(x), nn.InstanceNorm2d(5)(x))
        G, x, y = cyclegan().generators[0], torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
        torch.testing.assert_close(G(torch.cat([x, y])), torch.cat([G(x), G(y)]), atol=1e-5, rtol=1e-5)

    def test_any_height_and_width_through_cyclegan(self):
        model = cyclegan()
        for height, width in ((37, 50), (32, 64), (5, 7)):
            self.assertEqual(model.translate(torch.zeros(1, 3, height, width)).shape[2:], (height, width))

class Training(unittest.TestCase):
    def test_each_step_changes_only_its_own_network(self):
        for model, batch in ((dcgan(), [torch.rand(4, 3, 32, 32)]),
                             (cyclegan(), [torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)])):
            D, G, average = map(weights, (model.discriminators, model.generators, model.average))
            opt_D, opt_G = adam(model)
            fake = model.generate(batch)
            model.loss_D(batch, fake)[0].backward(inputs=opt_D.param_groups[0]['params'])
            self.assertTrue(all(p.grad is None for p in model.generators.parameters()))
            opt_D.step()
            self.assertFalse(torch.equal(D, weights(model.discriminators)))
            self.assertTrue(torch.equal(G, weights(model.generators)))
            D = weights(model.discriminators)
            opt_D.step = lambda: None
            train.step(model, [opt_D, opt_G], batch, contextlib.nullcontext())
            self.assertTrue(torch.equal(D, weights(model.discriminators)))
            self.assertFalse(torch.equal(G, weights(model.generators)))
            expected = gan.DECAY * average + (1 - gan.DECAY) * weights(model.generators)
            torch.testing.assert_close(weights(model.average), expected)

    def test_statistics_of_the_average_are_its_own(self):
        model = dcgan()
        for p in model.average.parameters():
            p.data.mul_(3)                          # weights of which G's statistics know nothing
        model.settle()
        torch.manual_seed(5)
        z = torch.randn(256, 100)
        G = model.average[0]
        own = model.paint(z)
        expected = G.train()(z)                     # statistics of this very batch
        self.assertLess((own - expected).abs().mean(), 0.05)

    def test_bytes_to_tensor_and_back_lose_nothing(self):
        pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
        x = train.draw_batch(pixels, 0, 1, 16, (0,))
        self.assertEqual((x.min(), x.max()), (-1, 1))
        self.assertEqual(sorted(train.to_uint8(x).ravel()), list(range(256)))

    def test_an_epoch_shows_each_picture_once_in_an_order_of_its_own(self):
        pixels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 4, 4, 1)
        def epoch(number, seed=(0,)):
            steps, n = 3, 10                        # 10 pictures by 4: portions of 3, 3 and 4
            return [int(v) for now in range(number * steps, number * steps + steps) for v in train.to_uint8(
                train.draw_batch(pixels, now * n // steps, (now + 1) * n // steps, 4, seed))[:, 0, 0, 0]]
        self.assertEqual(sorted(epoch(0)), list(range(10)))
        self.assertEqual(sorted(epoch(7)), list(range(10)))
        self.assertNotEqual(epoch(0), epoch(1))
        self.assertNotEqual(epoch(0), epoch(0, seed=(0, 1)))

    def test_augment_is_random_differentiable_and_moves_whole_pixels(self):
        x = torch.rand(8, 3, 32, 32, requires_grad=True)
        a, b = gan.augment(x), gan.augment(x)
        self.assertFalse(torch.equal(a, b))
        self.assertFalse(torch.equal(a[0] - a[0].mean(), a[1] - a[1].mean()))
        a.square().sum().backward()
        self.assertTrue((x.grad != 0).any(dim=(1, 2, 3)).all())
        place = torch.arange(32.0).expand(1, 1, 32, 32) + 100            # each pixel knows its column
        with torch.no_grad():
            moved = gan.augment(place.expand(64, 3, 32, 32))
        for picture in moved:
            hole = (picture[0] == 0).float().mean().item()
            self.assertLess(hole, 0.5)
        self.assertGreater((moved == 0).float().mean().item(), 0.1)

    def test_pool_gives_back_earlier_fakes_and_leaves_the_new_ones_alone(self):
        torch.manual_seed(0)
        pool, olds = gan.Pool(1, 1), 0
        for number in range(300):
            fake = torch.full((1, 1, 1, 1), float(number))
            shown = pool(fake)
            self.assertEqual(fake.item(), number)
            if number < 50:
                self.assertEqual(shown.item(), number)
            olds += shown.item() != number
            self.assertLessEqual(shown.item(), number)
        self.assertTrue(80 < olds < 170, olds)
        self.assertEqual(len(pool.images.unique()), 50)
        self.assertIn('images', pool.state_dict())

class Readers(Folder):
    def load(self, *arguments):
        with contextlib.redirect_stderr(io.StringIO()) as text:
            return data.load(*arguments), text.getvalue()

    def test_folder_of_folders_with_other_files_and_a_broken_picture(self):
        self.save('set/Albrecht Dürer/{}.jpg', 3)
        self.save('set/monet/a.PNG')
        self.save('set/.hidden/b.png')
        Path('set/artists.csv').write_text('name')
        Path('set/broken.jpg').write_bytes(b'\xff\xd8\xff no')
        pixels, text = self.load('set', 32)
        self.assertEqual(pixels.shape, (4, 32, 32, 3))
        self.assertIn("'broken.jpg'", text)

    def test_twins_are_told(self):
        self.save('art/images/monet/{}.jpg', 3)
        self.save('art/resized/{}.jpg', 3)
        self.assertIn('art/images', self.load('art')[1].replace(os.sep, '/') + 'art/images')
        self.assertIn('resized', self.load('art')[1])

    def test_every_mode_comes_out_upright_rgb(self):
        os.mkdir('set')
        red = Image.new('RGB', (40, 40), (200, 30, 40))
        for number, mode in enumerate(('L', 'P', 'RGBA', 'CMYK', 'LA', '1', 'RGB')):
            red.convert(mode).save(f'set/{number}.{"tif" if mode == "CMYK" else "png"}')
        pixels, _ = self.load('set', 32)
        gray = np.asarray(red.convert('L'))[0, 0]
        for number, colour in ((0, [gray] * 3), (1, (200, 30, 40)), (2, (200, 30, 40)), (4, [gray] * 3)):
            self.assertLess(np.abs(pixels[number].mean((0, 1)) - colour).max(), 30, number)
        self.assertEqual(len(pixels), 7)
        deep = np.full((40, 40), 40000, np.uint16)
        Image.fromarray(deep).save('set/deep.png')
        Image.new('RGBA', (40, 40), (0, 0, 0, 0)).save('set/clear.png')
        side = Image.new('RGB', (60, 40), 'black')
        side.paste('white', (0, 0, 30, 40))                          # left half white
        exif = Image.Exif()
        exif[0x0112] = 6                                             # turn by 90 degrees clockwise
        side.save('set/turned.jpg', exif=exif)
        sources = {p.stem: data.decode(p, 'RGB', 32)[0] for p in Path('set').iterdir()}
        self.assertTrue((sources['deep'] == 40000 // 257).all())
        self.assertTrue((sources['clear'] == 255).all())
        self.assertGreater(sources['turned'][2].mean(), 200)         # white on top
        self.assertLess(sources['turned'][-2].mean(), 50)

    def test_shorter_side_is_resized_and_the_middle_cut_out(self):
        wide = np.zeros((64, 192, 3), np.uint8)
        wide[:, 64:128] = 255
        Image.fromarray(wide).save('wide.png')
        picture, form = data.decode(Path('wide.png'), 'RGB', 32)
        self.assertGreater(picture[:, 2:-2].min(), 240)
        self.assertEqual(form, ('RGB', 192, 64))

    def test_tfrecord(self):
        def field(number, content):
            size, length = len(content), b''
            while size > 127:
                length, size = length + bytes([size & 127 | 128]), size >> 7
            return bytes([number << 3 | 2]) + length + bytes([size]) + content
        records = b''
        for i in range(3):
            file = io.BytesIO()
            Image.fromarray(np.full((40, 40, 3), 50 * i, np.uint8)).save(file, 'PNG')
            entries = b''
            for key, value in ((b'image_name', b'x%d' % i), (b'image', file.getvalue())):
                entries += field(1, field(1, key) + field(2, field(1, field(1, value))))
            example = field(1, entries)
            records += struct.pack('<QI', len(example), 0) + example + b'\0\0\0\0'
        os.mkdir('set')
        Path('set/a.tfrec').write_bytes(records)
        pixels, text = self.load('set', 32)
        self.assertEqual(pixels[:, 0, 0, 0].tolist(), [0, 50, 100])
        self.assertEqual(text, '')
        Path('set/a.tfrec').write_bytes(records[:-30])
        pixels, text = self.load('set', 32)
        self.assertEqual(len(pixels), 2)
        self.assertIn('a.tfrec', text)
        Path('set/a.tfrec').write_bytes(struct.pack('<QI', 2 ** 60, 0) + records)
        self.assertRaises(data.UserError, self.load, 'set', 32)

    def test_idx(self):
        digits = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
        os.mkdir('mnist')
        content = struct.pack('>4I', 0x803, 5, 28, 28) + digits.tobytes()
        Path('mnist/train-images-idx3-ubyte.gz').write_bytes(gzip.compress(content))
        Path('mnist/t10k-images-idx3-ubyte').write_bytes(content)
        Path('mnist/train-labels-idx1-ubyte.gz').write_bytes(
            gzip.compress(struct.pack('>2I', 0x801, 5) + bytes(5)))
        pixels, text = self.load('mnist')
        self.assertEqual((pixels.shape, text), ((10, 32, 32, 1), ''))
        self.assertEqual(data.decode(digits[0], size=28)[0][..., 0].tolist(), digits[0].tolist())

    def test_toy_scenes_are_always_the_same(self):
        a, b = data.toy_scenes(3, 32, dabs=True), data.toy_scenes(3, 32, dabs=True)
        self.assertTrue((a == b).all())
        self.assertGreater(np.abs(a[0].astype(int) - a[1]).mean(), 3)
        self.assertFalse((a == data.toy_scenes(3, 32, dabs=False)).all())

    def test_explore(self):
        self.save('set/one/{}.jpg', 12)
        code, text = self.run_main(data.main, 'set')
        self.assertEqual(code, 0, text)
        self.assertIn('12 pictures', text)
        self.assertIn("'one'", text)
        self.assertEqual(Image.open('out/data.png').width, 10 * 130 - 2)

SMALL = ['--size', 32, '--width', 4, '--data', 'set', '--epochs', 2, '--batch', 4]
CYCLE = ['--model', 'cyclegan', '--blocks', 1, '--photos', 'set', *SMALL[:-1], 2]

class Program(Folder):
    """train.py and sample.py as a user runs them."""

    def test_train_resume_and_sample_dcgan(self):
        self.save('set/{}.jpg', 9)
        code, text = self.run_main(train.main, *SMALL)
        self.assertEqual(code, 0, text)
        for name in ('last.pt', 'log.csv', 'loss.png', 'samples/0001.png', 'progress.gif'):
            self.assertTrue(Path('out/dcgan', name).exists(), name)
        rows = Path('out/dcgan/log.csv').read_text().splitlines()
        self.assertEqual(rows[0].split(',')[:4], ['epoch', 'step', 'seconds', 'images_per_second'])
        self.assertEqual([row.split(',')[:2] for row in rows[1:]], [['1', '3'], ['2', '6']])
        self.assertEqual(torch.load('out/dcgan/last.pt', weights_only=True)['step'], 6)
        code, text = self.run_main(train.main, *SMALL)
        self.assertEqual((code, text.count('\n')), (2, 1), text)
        code, text = self.run_main(train.main, '--resume', '--epochs', 3)
        self.assertEqual(code, 0, text)
        self.assertEqual(len(Path('out/dcgan/log.csv').read_text().splitlines()), 4)
        code, text = self.run_main(train.main, '--resume', '--width', 8)
        self.assertEqual((code, text.count('\n')), (2, 1), text)
        for out in ('a.png', 'b.gif', 'c.zip', 'd'):
            code, text = self.run_main(sample.main, '-n', 20, '--out', out)
            self.assertEqual(code, 0, text)
        self.assertEqual(Image.open('a.png').size, (5 * 34 - 2, 4 * 34 - 2))
        self.assertEqual(Image.open('b.gif').n_frames, 20)
        names = zipfile.ZipFile('c.zip').namelist()
        self.assertEqual((len(names), len(os.listdir('d'))), (20, 20))
        self.assertEqual(Image.open(zipfile.ZipFile('c.zip').open(names[0])).size, (256, 256))
        self.run_main(sample.main, '-n', 3, '--out', 'e')
        for name in os.listdir('e'):                   # number k is the same whatever -n
            difference = np.asarray(Image.open(f'e/{name}')) - np.asarray(Image.open(f'd/{name}')).astype(int)
            self.assertLessEqual(np.abs(difference).max(), 1)

    def test_train_and_translate_cyclegan(self):
        self.save('set/a/{}.jpg', 5)
        code, text = self.run_main(train.main, *CYCLE)
        self.assertEqual(code, 0, text)
        self.assertEqual(Image.open('out/cyclegan/samples/0002.png').size, (4 * 38 - 2, 6 * 38 - 2))
        self.assertIn('loss_cycle', Path('out/cyclegan/log.csv').read_text())
        code, text = self.run_main(sample.main, '--photos', 'set', '--out', 'painted')
        self.assertEqual(code, 0, text)
        self.assertEqual(Image.open('painted/a/0.png').size, (48, 40))
        code, text = self.run_main(sample.main, '--paintings', 'set', '-n', 3, '--out', 's.png')
        self.assertEqual(Image.open('s.png').size, (2 * 38 - 2, 3 * 38 - 2))
        code, text = self.run_main(sample.main, '--photos', 'set', '--out', 'images.zip')
        self.assertEqual((code, len(zipfile.ZipFile('images.zip').namelist())), (0, 5))
        self.assertIn('7,000', text)

    def test_stop_in_the_middle_and_resume_end_where_an_unbroken_run_ends(self):
        self.save('set/{}.jpg', 9)
        for options in (SMALL, CYCLE):
            self.assertEqual(self.run_main(train.main, *options, '--out', 'whole')[0], 0)
            for resume in ([*options, '--out', 'parts'], ['--resume', '--out', 'parts'],
                           ['--resume', '--out', 'parts']):
                run = train.Run([str(argument) for argument in resume])
                stop, draw = [2], train.draw_batch
                def draw_and_stop(*arguments):
                    stop[0] -= 1
                    if stop[0] == 0 and resume is not None:
                        os.kill(os.getpid(), signal.SIGTERM)
                    return draw(*arguments)
                train.draw_batch = draw_and_stop
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        run.train()
                finally:
                    train.draw_batch = draw
            self.run_main(train.main, '--resume', '--out', 'parts')
            whole, parts = (torch.load(f'{out}/last.pt', weights_only=True) for out in ('whole', 'parts'))
            self.assertEqual(whole['step'], parts['step'])
            for name in whole['model']:
                self.assertTrue(torch.equal(whole['model'][name], parts['model'][name]), name)
            cut = [[row[:2], *row[4:]] for row in ([line.split(',') for line in Path(
                out, 'log.csv').read_text().splitlines()] for out in ('whole', 'parts')) for row in row]
            self.assertEqual(cut[:len(cut) // 2], cut[len(cut) // 2:])
            for out in ('whole', 'parts'):
                for file in sorted(Path(out).rglob('*'), reverse=True):
                    file.rmdir() if file.is_dir() else file.unlink()
                os.rmdir(out)

    def test_mistakes_end_in_one_line_and_exit_code_2(self):
        self.save('set/{}.jpg', 2)
        os.mkdir('empty')
        os.mkdir('text')
        Path('text/a.jpg').write_text('no picture')
        Path('file').write_text('')
        Path('bad.pt').write_bytes(b'no checkpoint')
        for main, *arguments in ((train.main, '--data', 'monet_jpg'), (train.main, '--data', 'empty'),
                                 (train.main, '--data', 'text'), (train.main, '--size', 48),
                                 (train.main, '--batch', 0), (train.main, '--lr', 'nan'),
                                 (train.main, '--epochs', -1), (train.main, '--resume'),
                                 (train.main, '--device', 'cuda:99'), (train.main, '--device', 'x'),
                                 (train.main, *SMALL, '--out', 'file/out'),
                                 (train.main, '--model', 'cyclegan', '--size', 34),
                                 (sample.main, '--ckpt', 'none.pt'), (sample.main, '--ckpt', 'bad.pt'),
                                 (sample.main, '-n', 0), (data.main, 'none')):
            code, text = self.run_main(main, *arguments)
            self.assertEqual((code, text.rstrip('\n').split('\n')[1:]), (2, []), (arguments, text))
        self.assertFalse(Path('out').exists())

    def test_sigterm_of_the_real_program(self):
        self.save('set/{}.jpg', 4)
        process = subprocess.Popen([sys.executable, HERE / 'train.py', *map(str, SMALL), '--epochs', '9999'],
                                   stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(0.5)
        process.terminate()
        self.assertIn('--resume', process.communicate(timeout=30)[0])
        self.assertEqual(process.returncode, 0)
        self.assertTrue(Path('out/dcgan/last.pt').exists())

import warnings
warnings.simplefilter("ignore", ResourceWarning)

if __name__ == '__main__':
    unittest.main()
