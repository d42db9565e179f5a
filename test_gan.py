"""Tests on the CPU, with tiny pictures that they make, in seconds: python test_gan.py"""
import gzip
import io
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from functools import partial, partialmethod
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn

import data
import gan
import sample
import train
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)
dcgan = partial(gan.DCGAN, size=32, channels=3, width=8, upsample='resize')
cyclegan = partial(gan.CycleGAN, size=32, channels=3, width=4, blocks=1, upsample='resize')

class Folder(unittest.TestCase):
    """A test in an empty folder of its own, which is the current one meanwhile; seeded."""
    def setUp(self):
        torch.manual_seed(0)
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

    def run_line(self, code, line):
        """All that 'train ...' or 'sample ...' says, ending with 0, or 2 and one error line."""
        with (redirect_stdout(io.StringIO()) as text, redirect_stderr(io.StringIO()) as errors,
              mock.patch.object(sys, 'argv', f'{line} --device=cpu'.split()),
              self.assertRaises(SystemExit) as stop):
            torch.seed()                      # a process of its own would start somewhere else, too
            sys.exit(globals()[sys.argv[0]].main() or 0)
        ended, lines, parts = stop.exception.code, errors.getvalue().count('\n'), Path().rglob('.*')
        self.assertEqual((ended, lines, [*parts]), (code, code // 2, []), (line, errors.getvalue()))
        return text.getvalue() + errors.getvalue()

    def load(self, *arguments):
        with redirect_stdout(io.StringIO()) as text:
            return data.load(*arguments), text.getvalue()

    succeed, mistake = partialmethod(run_line, 0), partialmethod(run_line, 2)

class Models(Folder):
    def test_equations_by_hand_and_against_binary_cross_entropy(self):
        real, fake, bce = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0]), nn.BCELoss()
        D_real, D_fake, yes, no = real.sigmoid(), fake.sigmoid(), torch.ones(2), torch.zeros(2)
        ours = [gan.discriminator_loss(real, fake), gan.generator_loss(fake)]
        torch.testing.assert_close(ours, [bce(D_real, yes) + bce(D_fake, no), bce(D_fake, yes)])
        slope, loss = torch.func.grad_and_value(gan.generator_loss)(torch.tensor(-1e4))
        self.assertEqual((slope, loss), (-1, 1e4))      # slope of the minimax loss: 0; log(0): -inf

    def test_cyclegan_losses_by_hand(self):
        model = cyclegan()
        for net in (*model.generators, *model.discriminators):
            net.forward = lambda x: x / 2
        x, y = torch.full((1, 3, 32, 32), 0.8), torch.full((1, 3, 32, 32), 0.2)
        # D_Y(y) = 0.1 and D_Y(G(x)) = 0.2; D_X(x) = 0.4 and D_X(F(y)) = 0.05
        (_, figures), (loss, more) = model.losses(x, y)
        for name, value in {'D_Y': (0.9 ** 2 + 0.2 ** 2) / 2, 'D_X': (0.6 ** 2 + 0.05 ** 2) / 2,
                            'G': 0.64, 'F': 0.9025, 'cycle': 0.75, 'identity': 0.5}.items():
            self.assertAlmostEqual((figures | more)[f'loss_{name}'].item(), value, places=5)
        self.assertAlmostEqual(loss.item(), 0.64 + 0.9025 + 10 * 0.75 + 5 * 0.5, places=4)

    def test_shapes_and_the_patch_of_70_pixels_are_those_in_the_comments(self):
        model, cycle = dcgan(size=64, width=64), cyclegan(width=64)
        hidden = [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32)]
        patch = [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 31, 31)]
        down = [(64, 32, 40), (128, 16, 20), (256, 8, 10)]
        for net, *wanted in ((model.generators[0], (100,), (100, 1, 1), *hidden, (3, 64, 64)),
                             (model.discriminators[0], (3, 64, 64), *hidden[::-1], (1, 1, 1)),
                             (cycle.discriminators[0], (3, 256, 256), *patch, (1, 30, 30)),
                             (cycle.generators[0], (3, 32, 40), *down, *down[1::-1], (3, 32, 40))):
            x = torch.zeros(1, *wanted[0])
            outputs = itertools.accumulate(net, lambda x, layer: layer(x), initial=x)
            shapes = [shape for shape, _ in itertools.groupby(tuple(x.shape[1:]) for x in outputs)]
            self.assertEqual(shapes, wanted)                        # each once
        layers = nn.Sequential(*[a for a in cycle.discriminators[0] if isinstance(a, nn.Conv2d)])
        slopes = torch.func.grad(lambda x: layers(x)[0, 0, 15, 15])(torch.zeros(1, 3, 256, 256))
        self.assertEqual((slopes[0, 0] != 0).sum(), 70 * 70)        # pixels that one output sees

    def test_every_size_and_number_of_channels(self):
        for form in itertools.product(gan.DCGAN.SIZES, (1, 3), (2,), ('resize', 'transposed')):
            model = gan.DCGAN(*form)
            fake = model.generators[0](torch.zeros(2, 100))
            self.assertEqual(fake.shape, (2, form[1], form[0], form[0]))
            self.assertEqual(model.discriminators[0](fake).numel(), 2)

    def test_the_five_guidelines_of_the_dcgan_paper(self):
        model = dcgan(size=64, width=32, upsample='transposed')
        G, D = list(model.generators[0]), list(model.discriminators[0])
        up, down, norm = nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d        # no pool, no Linear
        self.assertEqual([*map(type, G)], [nn.Unflatten, *[up, norm, nn.ReLU] * 4, up, nn.Tanh])
        self.assertEqual([*map(type, D)], [down, nn.Identity, nn.LeakyReLU,
                                           *[down, norm, nn.LeakyReLU] * 3, nn.Dropout, down])
        self.assertEqual([*{getattr(a, 'negative_slope', 0.2) for a in D}, D[-2].p], [0.2, 0.4])
        for layer in [a for a in G + D if isinstance(a, (up, down))][:-1]:
            self.assertAlmostEqual(layer.weight.std().item(), 0.02, delta=0.002)

    def test_the_default_up_sampling_prints_no_grid(self):
        def grid_power(upsample):
            x = torch.ones(1, 64, 16, 16) + 0.1 * torch.randn(1, 64, 16, 16)
            y = torch.stack([gan.doubling(64, 1, upsample)(x)[0, 0, 4:-4, 4:-4] for _ in range(20)])
            power = torch.fft.fft2(y - y.mean((1, 2), keepdim=True)).abs().square().mean(0)
            return (power[12, 0] + power[0, 12] + power[12, 12]) / power.sum()    # period of 2 px
        self.assertLess(grid_power(train.read_options([]).upsample), 0.05)
        self.assertGreater(grid_power('transposed'), 0.3)
        layer, x = gan.doubling(3, 2, 'resize'), torch.rand(1, 3, 5, 6)
        [weight], doubled = layer.parameters(), nn.Upsample(scale_factor=2)(x)
        two_steps = nn.functional.conv2d(doubled, weight.transpose(0, 1).flip(2, 3), padding=1)
        torch.testing.assert_close(layer(x), two_steps)

    def test_instance_norm_and_batching_of_what_shares_weights(self):
        model, both = cyclegan(), torch.randn(2, 3, 32, 32) * 3 + 1
        torch.testing.assert_close(gan.InstanceNorm()(both), nn.InstanceNorm2d(3)(both))
        [G, _], model.generators = model.generators, None           # the average is to paint
        torch.testing.assert_close(G(both), torch.cat([*map(G, both.split(1))]), atol=1e-5, rtol=0)
        self.assertEqual(gan.Residual(nn.ReLU())(torch.ones(1)), 2)
        model.average[0] = nn.Sequential(nn.PixelUnshuffle(4), nn.PixelShuffle(4))      # as it was
        for x in (torch.randn(1, 3, *shape) for shape in ((37, 50), (32, 64), (5, 7), (12, 1))):
            torch.testing.assert_close(model.paint(x), x)           # any height and width

    def test_both_halves_of_a_step_judge_by_the_same_statistics(self):
        model = dcgan()
        *_, dropout, last = model.discriminators[0]
        dropout.p, last.weight.data = 0, 20 * last.weight.data      # logits far from 0
        with mock.patch.object(gan, 'augment', side_effect=lambda x: x) as augment:
            (_, first), (_, second) = model.losses(torch.rand(1, 3, 32, 32))
        self.assertEqual([len(call.args[0]) for call in augment.call_args_list], [2, 1])
        self.assertAlmostEqual(second['loss_G'].item(), -first['D_fake'].log().item(), delta=0.1)

    def test_each_step_changes_only_its_own_network(self):
        x = torch.rand(4, 3, 32, 32)
        for model, batch in ((dcgan(), [x]), (cyclegan(), [x[:1], x[1:2]])):
            nets = (model.discriminators, model.generators, model.average)
            def weights():
                return [nn.utils.parameters_to_vector(net.parameters()) for net in nets]    # copies
            optimizer, seen = torch.optim.Adam(model.parameters(), lr=1e-3), [weights()]
            optimizer.register_step_post_hook(lambda *_: seen.append(weights()))
            train.step(model, optimizer, batch, torch.autocast('cpu', enabled=False), decay=0.9)
            same = [[*map(torch.equal, *two)] for two in itertools.pairwise(seen)]
            self.assertEqual(same, [[False, True, True], [True, False, True]])  # D changes, then G
            torch.testing.assert_close(weights()[2], seen[0][2].lerp(weights()[1], 0.1))

    def test_statistics_of_the_average_are_its_own(self):
        model = dcgan()
        for p in model.average.parameters():
            p.data.mul_(3)                          # weights of which G's statistics know nothing
        z = gan.noise(256, seed=5)
        own = torch.cat([*model.paint(z)])          # and by statistics of this very batch:
        self.assertLess((own - model.average[0].train()(z)).abs().mean(), 0.05)

    def test_bytes_to_tensor_and_back_lose_nothing(self):
        pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(64, 1, 16, 16)
        x = train.draw_batch(pixels, 0, 64, 16, (0,))
        self.assertEqual((x.min(), x.max(), len(x.unique(dim=0))), (-1, 1, 2))      # two: mirrored
        self.assertEqual(sorted(train.to_uint8(x[:1]).ravel()), list(range(256)))
        crops = [train.draw_batch(pixels, 0, 1, 8, (0,)).min().item() for _ in range(20)]
        self.assertGreater(len({*crops}), 2)                                        # at random

    def test_an_epoch_shows_each_picture_once_in_an_order_of_its_own(self):
        pixels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 4, 4)
        def epoch(number, seed=(0, 0)):                # 10 pictures by 4: portions of 3, 3 and 4
            x = [train.draw_batch(pixels, now * 10 // 3, (now + 1) * 10 // 3, 4, seed)
                 for now in range(3 * number, 3 * number + 3)]
            return train.to_uint8(torch.cat(x))[:, 0, 0, 0].tolist()
        self.assertEqual(sorted(epoch(0)) + sorted(epoch(1)), [*range(10), *range(10)])
        self.assertEqual(len({*map(tuple, (epoch(0), epoch(1), epoch(0, seed=(0, 1))))}), 3)

    def test_augment_is_random_differentiable_and_moves_whole_pixels(self):
        slopes = torch.func.grad(lambda x: gan.augment(x).square().sum())(torch.rand(8, 3, 32, 32))
        self.assertTrue((slopes != 0).flatten(1).any(dim=1).all())
        moved = gan.augment(torch.arange(5.0, 37).expand(64, 3, 32, 32))
        empty = (moved == 0).float().mean(dim=(1, 2, 3))
        self.assertTrue(0.15 < empty.mean() < 0.5 and empty.max() < 0.6, empty)
        self.assertTrue((moved % 1 == 0).all() and len(moved[..., 0].unique()) > 2)    # not mixed

    def test_pool_gives_back_earlier_fakes_and_leaves_the_new_ones_alone(self):
        pool, olds = torch.zeros(50, 1, 1, 1), 0
        for first in range(1, 300, 3):                              # 3 do not divide 50
            fake = torch.arange(first, first + 3.0).view(3, 1, 1, 1)
            shown = gan.pooled(fake, pool, seen=first - 1)
            self.assertEqual(fake.flatten().tolist(), [first, first + 1, first + 2])
            self.assertTrue((shown > 0).all() and (shown <= fake).all())
            olds += (shown != fake).sum().item()
            self.assertFalse(olds and first < 48)
        self.assertTrue(80 < olds < 170 and len(pool.unique()) == 50, olds)

class Readers(Folder):
    def test_folder_of_folders_with_other_files_and_a_broken_picture(self):
        self.save('set/Albrecht Dürer/{}.jpg', 3)
        Image.new('RGB', (90, 50)).save('set/Albrecht Dürer/a.PNG')
        self.save('set/.hidden/b.png')
        for name, text in (('artists.csv', b'a'), ('bad.jpg', b'a'), ('ppm.jpg', b'P6 1 1 9 abc')):
            Path('set', name).write_bytes(text)                     # PPM is none of FORMATS
        self.save('set/resized/{}.jpg', 3)                          # the same pictures again
        text = subprocess.check_output([sys.executable, data.__file__, 'set'], text=True)
        self.assertRegex(text, r"(?s)'bad.jpg', 'ppm.jpg'.* 40 to 50 .*twice.* 7 #{40} .* 4 #{22} ")
        self.assertEqual(np.asarray(Image.open('look.png')).shape, (72, 7 * 74 - 2, 3))

    def test_every_mode_comes_out_upright_rgb(self):
        red = Image.new('RGB', (60, 40), (200, 30, 40))
        red.paste((0, 0, 0), (0, 0, 30, 40))                        # the left half black
        exif = Image.Exif()
        exif[0x0112] = 6                                            # to be turned clockwise
        deep = Image.fromarray(np.asarray(red.convert('L')).astype(np.uint16) * 257)    # 16 bits
        for name in 'deep.png L.png P.png RGBA.webp CMYK.jpg LA.png RGB.tif RGB.bmp P.gif'.split():
            mode, ending = name.split('.')
            (deep if mode == 'deep' else red.convert(mode)).save(name, exif=exif)
            picture = data.decode(Path(name), Path(), 3, 32)        # bmp, gif hold no mark:
            picture = picture.transpose(1, 0, 2) if ending in ('bmp', 'gif') else picture
            self.assertLess(picture[:12].mean(), 15, name)
            colour = [82] * 3 if mode in ('L', 'LA', 'deep') else (200, 30, 40)
            self.assertLess(np.abs(picture[20:].mean((0, 1)) - colour).max(), 30, name)
        self.assertLess(data.decode(Path('RGB.bmp'), Path(), 3, 20)[:, :9].max(), 30)  # middle 40²
        Image.new('RGBA', (40, 40), (0, 0, 0, 0)).save('clear.png')
        self.assertEqual(data.decode(Path('clear.png'), Path()).min(), 255)

    def test_idx(self):
        digits = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
        content = np.array([0x803, 5, 28, 28], '>u4').tobytes() + digits.tobytes()
        Path('train-images-idx3-ubyte.gz').write_bytes(gzip.compress(content))
        Path('t10k-images-idx3-ubyte').write_bytes(content)
        Path('t10k-labels-idx1-ubyte').write_bytes(np.array([0x801, 5], '>u4').tobytes() + bytes(5))
        self.assertEqual(self.load('.')[0].shape, (10, 32, 32, 1))
        self.assertTrue((data.decode(digits[0], Path(), size=28)[..., 0] == digits[0]).all())
        for bad in (content[:-1], content[:9], content[:4] + 12 * b'\xff', content[:8] + bytes(8)):
            Path('t10k-images-idx3-ubyte').write_bytes(bad)
            self.assertRegex(self.load('.')[1], '5 pictures.* 2 files.*t10k-images.*t10k-lab')

    def test_tfrecords(self):
        def field(tag, content):                          # of Protocol Buffers; length in 3 bytes
            return bytes([tag, len(content) % 128 + 128, len(content) // 128 + 128, 0]) + content
        def pair(name, value, order):
            fields = [field(10, name), field(18, field(10, field(10, value)))]
            return field(10, b''.join(fields[::order]))
        self.save('{}.png')
        image = pair(b'image', Path('0.png').read_bytes(), -1)      # its name is the last field
        example = field(10, pair(b'text', pair(b'image', b'no', 1), 1) + image)         # no image
        record = np.array(len(example), '<u8').tobytes() + b'sum1' + example + b'sum2'
        for second, n in ((record, 2), (record[:-1], 1), (record[:7], 1), (b'0' + record, 1)):
            Path('a.tfrec').write_bytes(record + second)
            pixels, text = self.load('a.tfrec', 0)
            self.assertTrue((pixels == PHOTO).all())
            self.assertRegex(text, f'{n} pictures.* {2 - n} files')

    def test_toy_scenes_are_always_the_same_and_of_any_size(self):
        a = np.stack([data.toy_scene(i % 30, 67, dabs=i < 31) for i in range(32)])
        self.assertTrue((a[0] == a[30]).all() and (a[1] != a[31]).any() and (a[0] != a[1]).any())

SMALL = 'train --size 32 --width 4 --data set --epochs 2 --batch 4'
CYCLE = f'{SMALL} --model cyclegan --blocks 1 --photos set --batch 2'

def one_of_two(options, sets, model, *rest, real=train.train, grad=torch.autograd.grad):
    """What each of two processes does in place of train.train() in the test of them."""
    D, (x, y) = [*model.discriminators.parameters()], torch.rand(2, 2, 3, 32, 32)
    half, whole = (grad(next(model.losses(x[i], y[i]))[0], D) for i in ([train.RANK], [0, 1]))
    train.share(half)
    torch.testing.assert_close(half, whole)
    with mock.patch.object(train, 'draw_batch', wraps=train.draw_batch) as draw:
        real(options, sets, model, *rest)
    firsts = [call.args[1] for call in draw.mock_calls]
    torch.save([[*model.parameters()], firsts, torch.initial_seed()], f'{train.RANK}.pt')

class Program(Folder):
    """train.py and sample.py as a user runs them."""
    def test_train_resume_and_sample_dcgan(self):
        self.save('set/{}.jpg', 9)
        self.succeed(SMALL)
        self.assertEqual(sorted(os.listdir('out/dcgan')),
                         ['last.pt', 'log.csv', 'loss.png', 'progress.gif', 'samples'])
        [group] = torch.load('out/dcgan/last.pt', weights_only=True)['optimizer']['param_groups']
        self.assertEqual((round(group['lr'] * 3, 9), group['betas']), (2e-4, (0, .99)))  # 1/3 left
        self.assertIn('--resume', self.mistake(SMALL))
        self.succeed('train --resume --epochs 3')
        self.assertRegex(Path('out/dcgan/log.csv').read_text(), r'^.*\n1,3,.*\n2,6,.*\n3,9,.*\n\Z')
        self.assertIn('--width=4', self.mistake('train --resume --width 8'))
        self.assertIn('[3, 9]', self.mistake('train --resume --batch 2'))
        for out, n in (('a.png', 20), ('b.gif', 3), ('c.zip', 20), ('d', 20), ('e', 3)):
            self.succeed(f'sample -n {n} --out {out}')
        self.assertEqual(np.asarray(Image.open('a.png')).shape, (4 * 34 - 2, 5 * 34 - 2, 3))
        with Image.open('out/dcgan/progress.gif') as progress, Image.open('b.gif') as walk:
            self.assertEqual((progress.n_frames, walk.n_frames), (3, 48))
        self.assertIn('not there yet', self.mistake('sample --out d'))
        self.assertEqual(Image.open(zipfile.ZipFile('c.zip').open('00020.jpg')).size, (256, 256))
        few, many = (self.load(out, 0)[0].astype(int) for out in 'ed')
        self.assertEqual((few.shape, many.shape), ((3, 32, 32, 3), (20, 32, 32, 3)))
        self.assertLessEqual(np.abs(few - many[:3]).max(), 1)       # the same whatever -n

    def test_train_and_translate_cyclegan(self):
        self.save('set/a/{}.jpg', 5)
        self.save('few/{}.jpg', 3)
        self.succeed(f'{CYCLE} --photos few')
        self.assertEqual(self.load('out/cyclegan/samples', 0)[0].shape, (2, 6 * 38 - 2, 112, 3))
        pools = torch.load('out/cyclegan/last.pt')['model']['pools']
        self.assertEqual(len(pools.unique(dim=0)), 20)              # of 2 times 5 paintings, photos
        self.assertIn('loss_cycle', Path('out/cyclegan/log.csv').read_text())
        self.assertIn('l=cyclegan', self.mistake('sample --ckpt out/cyclegan/last.pt'))
        self.mistake('sample --photos none --out images.zip')       # and leaves no part of it
        with mock.patch.object(gan.CycleGAN, 'paint', lambda _, x, back: 0 * x - 1 + 2 * back):
            self.succeed('sample --photos set --out painted')
            self.assertIn('; 0', self.succeed('sample --paintings set -n 3 --out s.png'))
        self.assertEqual(Image.open('painted/a/0.png').tobytes(), bytes(48 * 40 * 3))       # by G
        sheet = np.asarray(Image.open('s.png'))
        self.assertEqual((sheet.shape, sheet[:36, 38:74].min()), ((74, 4 * 38 - 2, 3), 255))    # F
        self.assertIn(': 5 pictures; warn', self.succeed('sample --photos set --out images.zip'))

    @mock.patch('time.perf_counter', itertools.count().__next__)    # each step takes a second
    def test_stop_in_the_middle_and_resume_end_where_an_unbroken_run_ends(self):
        self.save('set/{}.jpg', 9)
        for model, line in (('dcgan', SMALL), ('cyclegan', CYCLE)):
            self.succeed(f'{line} --out {model}/whole')
            for steps, part in ((1, line), (1, 'train --resume'), (99, 'train --resume')):
                def step(*inputs, real=train.step, signals=[0] * steps + [signal.SIGTERM]):
                    if number := signals.pop(0):                    # there must be no step after it
                        signal.raise_signal(number)
                    self.assertTrue(0 < inputs[-1] < 1)             # the average's share of itself
                    return real(*inputs)
                with mock.patch.object(train, 'step', step):
                    self.succeed(f'{part} --out {model}/parts')
            whole, parts = (torch.load(f'{model}/{out}/last.pt') for out in ('whole', 'parts'))
            for name in ('model', 'optimizer', 'rows'):
                torch.testing.assert_close(whole[name], parts[name], rtol=0, atol=0)

    def test_two_processes_take_the_same_steps_by_different_pictures(self):
        self.save('set/{}.jpg', 8)
        code = 'import test_gan, train; train.train = test_gan.one_of_two; train.main()'
        command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--no-python',
                   sys.executable, '-c', code, '--device=cpu', *CYCLE.split()[1:]]
        subprocess.run([sys.executable, *command], check=True, capture_output=True,
                       env=os.environ | {'PYTHONPATH': sys.path[0]})
        (weights, x, a), (others, y, b) = torch.load('0.pt'), torch.load('1.pt')
        torch.testing.assert_close(weights, others, rtol=0, atol=0)
        self.assertEqual((sorted(x + y), a == b), ([i for i in range(16) for _ in 'XY'], False))
        self.succeed('train --model cyclegan --resume --epochs 3')                      # by one
        with mock.patch.object(train, 'WORLD', 9):    # raises 8, but not when resumed
            made = [train.read_options(a.split()) for a in ('', '--resume --size 132', '--data=a')]
        self.assertEqual([(a.batch, a.width) for a in made], [(9, 32), (8, 32), (16, 64)])

    @unittest.skipUnless('KILLS' in os.environ, 'KILLS=50 kills a run 50 times: 4 minutes')
    def test_a_run_that_is_killed_anywhere_goes_on(self):
        code = 'import train; train.SAVE_EVERY = 0; train.main()'          # in saving, mostly
        options, reached = ['--size', '32', '--width', '4', '--epochs', '99999'], 0
        for _ in range(int(os.environ['KILLS'])):
            t, command = time.time(), [sys.executable, '-c', code, '--out', os.getcwd(), *options]
            with subprocess.Popen(command, cwd=sys.path[0], stdout=subprocess.DEVNULL) as run:
                while not (file := Path('last.pt')).exists() or file.stat().st_mtime < t:
                    self.assertIsNone(run.poll())
                time.sleep(np.random.default_rng().random())
                run.kill()
            self.assertGreater(step := torch.load(file)['step'], reached)
            options, reached = ['--resume'], step

    def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint(self):
        self.save('bytearray/{}.jpg', 4)      # this word in an option is not one in a checkpoint
        self.succeed(f'{SMALL} --data bytearray')
        with mock.patch.object(gan, 'generator_loss', lambda fake: fake.mean() * np.nan):
            self.assertIn('finite by step 3', self.mistake('train --resume --epochs 4'))
        self.assertNotIn('nan', Path('out/dcgan/log.csv').read_text())
        self.assertEqual(torch.load(path := Path('out/dcgan/last.pt'))['step'], 2)
        path.write_bytes(path.read_bytes().replace(b'loss_D', b'loss_E'))       # damaged on disk
        self.mistake('train --resume --epochs 4')

    def test_mistakes_end_in_one_line_and_exit_code_2(self):
        self.save('set/{}.jpg', 2)
        os.makedirs('text/samples')
        Path('text/a.jpg').write_bytes(b'none')
        torch.save(type('Evil', (), {'__reduce__': lambda _: (os.mkdir, ('out',))})(), 'odd.pt')
        for line in ('train --data no', 'train --data text/samples', 'train --data text',
                     'train --data set --out text/a.jpg/out', 'train --data set --out text',
                     'train --size 48', 'train --batch 0', 'train --lr nan', f'{SMALL} --out set/a',
                     'train --resume', 'train --device cuda:99', 'sample -n 0', 'train --epochs -1',
                     'train --model cyclegan --size 34', 'sample --photos a --paintings b',
                     'sample --ckpt none.pt', 'sample --ckpt text/a.jpg', 'sample --ckpt odd.pt'):
            self.mistake(line)
        self.assertFalse(Path('out').exists())

if __name__ == '__main__':
    unittest.main()
