"""Networks and losses of two GANs: DCGAN paints from noise z, CycleGAN makes photos into Monets.
A discriminator D learns to tell real pictures x, (B, C, H, W) in [-1, 1], from generated ones; a
generator G learns, by the gradient that comes back through D, to make what D takes for real.
    python train.py && python sample.py -n 64         # toy paintings, and new ones like them
Papers: DCGAN, Radford et al. 2015, arXiv 1511.06434; CycleGAN, Zhu et al. 2017, 1703.10593."""
import copy
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import affine_grid, batch_norm, grid_sample, l1_loss, pad, softplus
Z = 100                      # numbers in z, as in the DCGAN paper

def doubling(c_in, c_out, upsample):
    """The layer that doubles the resolution: (B, c_in, H, W) -> (B, c_out, 2H, 2W). 'transposed':
    each pixel of a 2x2 block has weights of its own, so even what is flat gets a grid (Odena 2016,
    README). 'resize': nearest neighbours, then 3x3 convolution: flat stays flat, borders aside."""
    if upsample == 'transposed':                       # as in both papers (5x5 and 3x3; here 4x4)
        return nn.ConvTranspose2d(c_in, c_out, kernel_size=4, stride=2, padding=1, bias=False)
    # Of 9 doubled pixels only 4 differ; weights of equal ones are added up first: 4 products, not 9
    layer = nn.ConvTranspose2d(c_in, c_out, kernel_size=3, stride=2, padding=1, bias=False)
    sums = nn.AvgPool2d(2, stride=1, padding=1, divisor_override=1)  # 3x3 to 4x4, so unsafe=True
    return nn.utils.parametrize.register_parametrization(layer, 'weight', sums, unsafe=True)

def generator(size, channels, width, upsample):
    """DCGAN's G: z (B, 100) -> pictures (B, channels, size, size). BatchNorm replaces each
    channel's mean and deviation over the batch by learnt ones: a bias before it would be lost."""
    widths = [width * min(2 ** i, 8) for i in reversed(range(size.bit_length() - 3))]
    layers = [nn.Unflatten(1, (Z, 1, 1)),              # (B, 100, 1, 1); then, for 64 px, width 64:
              nn.ConvTranspose2d(Z, widths[0], kernel_size=4, bias=False)]        # (B, 512, 4, 4)
    # and in turn (B, 256, 8, 8), (B, 128, 16, 16), (B, 64, 32, 32), (B, 3, 64, 64)
    for c_in, c_out in zip(widths, [*widths[1:], channels]):
        layers += [nn.BatchNorm2d(c_in), nn.ReLU(inplace=True), doubling(c_in, c_out, upsample)]
    return nn.Sequential(*layers, nn.Tanh())               # to [-1, 1]

def discriminator(channels, width, strides, norm, padding, dropout):
    """D of both models: pictures (B, channels, H, W) -> (B, 1, h, w), higher for 'real'. DCGAN's is
    a logit; its sigmoid, the end of the paper's D, is D(x) in formulas: how likely 'real' is."""
    # First without norm (DCGAN paper: unstable with it); no biases. Shapes after each, width 64:
    # DCGAN, 64 px      (64, 32, 32)     (128, 16, 16)   (256, 8, 8)     (512, 4, 4)    (1, 1, 1)
    # CycleGAN, 256 px  (64, 128, 128)   (128, 64, 64)   (256, 32, 32)   (512, 31, 31)  (1, 30, 30)
    widths, layers = [channels, *(width * min(2 ** i, 8) for i in range(len(strides)))], []
    for i, (c_in, c_out, stride) in enumerate(zip(widths, widths[1:], strides)):
        layers += [nn.Conv2d(c_in, c_out, kernel_size=4, stride=stride, padding=1, bias=False),
                   norm(c_out) if i else nn.Identity(), nn.LeakyReLU(0.2, inplace=True)]
    last = nn.Conv2d(widths[-1], 1, kernel_size=4, padding=padding, bias=False)
    return nn.Sequential(*layers, nn.Dropout(dropout), last)   # dropout: D is to use many features

def discriminator_loss(real, fake):
    """D's loss from its logits for real and for generated pictures, of any shape.
    Goodfellow et al. 2014, arXiv 1406.2661, Eq. 1: D maximises E[log D(x)] + E[log(1 - D(G(z)))]"""
    # softplus(t) = log(1 + e^t): these are -log D, -log(1 - D), but not inf if D rounds to 0 or 1
    return softplus(-real).mean() + softplus(fake).mean()

def generator_loss(fake):
    """G's loss from D's logits for generated pictures: the non-saturating one.
    By Eq. 1, a minimax game, G would minimise E[log(1 - D(G(z)))]. Its slope in the logit is
    -D(G(z)): almost 0, saturated, while D knows each fake, just when G has most to learn. So their
    section 3 has another loss, -E[log D(G(z))]: slope D(G(z)) - 1, and the same end: D = 1/2."""
    return softplus(-fake).mean()                         # -log D(G(z)) = softplus(-logit)

def augment(x):
    """DiffAugment (Zhao et al. 2020, arXiv 2006.10738) of (B, C, S, S): shift and cutout.
    All that DCGAN's D sees passes through it; else D would soon know 300 paintings by heart.
    Were only the real ones changed, G would paint the changes; were only the fakes, D would go by
    them. G's gradient comes back through it. The paper changes colours too: worse here (README)."""
    shift, centre = torch.empty(2, len(x), 1, 1, 2, device=x.device).uniform_(-1, 1)   # 1: an edge
    identity = torch.eye(2, 3, device=x.device)[None]     # in autocast's bfloat16 exact to 256 px
    where = affine_grid(identity, x[:1].shape, align_corners=False) + shift / 4     # (B, S, S, 2)
    x = grid_sample(x, where, mode='nearest', align_corners=False)  # up to S / 8 away; past edges 0
    return x.masked_fill((where - centre).abs().amax(3)[:, None] < 0.5, 0)      # a hole, S/2 wide

def noise(n, seed):
    """z (n, 100) ~ N(0, 1) of a seed: the first ones do not depend on n. The paper has uniform z;
    Gaussian z, as in most code since, stays so on a walk: cos(t) a + sin(t) b is like a and b."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, Z), np.float32))

class GAN(nn.Module):
    """In both models: generators, discriminators, and the generators' weights averaged over many
    steps (EMA, in step() of train.py). The average paints: the latest G, chasing D, wavers more."""
    def __init__(self, generators, discriminators):
        super().__init__()
        self.generators, self.discriminators = map(nn.ModuleList, (generators, discriminators))
        for weight in (p for p in self.parameters() if p.dim() == 4):     # of convolutions, as
            nn.init.normal_(weight, mean=0, std=0.02)                     # in both papers
        self.average = copy.deepcopy(self.generators).requires_grad_(False).eval()

class DCGAN(GAN):
    """G paints from z, numbers to which it gives meaning. A batch is [x], pictures (B, C, S, S)."""
    SIZES, BETAS = (32, 64, 128, 256), (0.0, 0.99)   # pixels; of Adam (the paper: 0.5, 0.999)

    def __init__(self, size, channels, width, upsample, **_):
        strides = (2,) * (size.bit_length() - 3)        # 64 has 7 bits: halved 4 times, to 4x4
        norm = partial(nn.BatchNorm2d, momentum=1.0)     # eval() goes by the last batch alone
        super().__init__([generator(size, channels, width, upsample)],
                         [discriminator(channels, width, strides, norm, padding=0, dropout=0.4)])

    def losses(self, x):
        """Yield (D's loss, values to log); then, once step() in train.py has updated D, G's.
        If G is perfect, D guesses: D_real = D_fake = 0.5, loss_D = 2 log 2 = 1.39, loss_G = log 2 =
        0.69. D_fake near 0, loss_G > 5 for long (except toys): D wins. All alike: collapse."""
        [G], [D] = self.generators, self.discriminators
        fake = G(torch.randn(len(x), Z, device=x.device))                    # (B, C, S, S)
        # Real and fake in one batch: in two, as most code has them, BatchNorm would hide from D how
        # their means differ. detach(): this loss is for D alone; its gradient need not go into G.
        on_real, on_fake = D.train()(augment(torch.cat([x, fake.detach()]))).float().chunk(2)
        loss = discriminator_loss(on_real, on_fake)                          # of logits
        yield loss, {'loss_D': loss, 'D_real': on_real.sigmoid(), 'D_fake': on_fake.sigmoid()}
        # eval(): no dropout, and BatchNorm by mean and variance of the batch above, half real.
        # By the fakes' own, D would judge them otherwise than in its loss (tried: G collapsed).
        loss = generator_loss(D.eval()(augment(fake)).float())
        yield loss, {'loss_G': loss}

    def paint(self, z):
        """Yield pictures (<= 16, C, S, S) by the averaged G for z (..., 100). First, BatchNorm's
        statistics for it: those of G belong to other weights, and make washed-out pictures."""
        torch.optim.swa_utils.update_bn(noise(128, seed=1).to(z.device).split(64), self.average[0])
        yield from map(self.average[0], z.flatten(0, -2).split(16))

    def preview(self, x):
        """(pictures, columns) of a progress grid: of the same 64 z each time, on x's device."""
        return torch.cat([*self.paint(noise(64, seed=0).to(x.device))]), 8

class InstanceNorm(nn.Module):
    """Each channel of a picture gets mean 0 and variance 1: contrast, part of style, is gone."""
    def forward(self, x):     # (B, C, H, W); in channels_last in half the time of nn.InstanceNorm2d
        return torch.cat([batch_norm(one, None, None, training=True) for one in x.split(1)])

class Residual(nn.Sequential):
    """x + layers(x): only what is to change need be learnt."""
    def forward(self, x):
        return x + super().forward(x)

def translator(channels, width, blocks, upsample):
    """CycleGAN's G and F (section 7.2): (B, channels, H, W) -> the same; H, W: 8, 12, 16 ..."""
    conv = partial(nn.Conv2d, kernel_size=3, padding=1, padding_mode='reflect')   # fewer artefacts
    norm, relu = InstanceNorm(), nn.ReLU(inplace=True)          # without weights: one does for all
    return nn.Sequential(                            # the paper's names, and shapes for width 64:
        conv(channels, width, kernel_size=7, padding=3), norm, relu,     # c7s1-64 (B, 64, H, W)
        conv(width, 2 * width, stride=2), norm, relu,                    # d128 (B, 128, H/2, W/2)
        conv(2 * width, 4 * width, stride=2), norm, relu,                # d256 (B, 256, H/4, W/4)
        *[Residual(conv(4 * width, 4 * width), norm, relu,               # R256, the same
                   conv(4 * width, 4 * width), norm) for _ in range(blocks)],
        doubling(4 * width, 2 * width, upsample), norm, relu,            # u128 (B, 128, H/2, W/2)
        doubling(2 * width, width, upsample), norm, relu,                # u64 (B, 64, H, W)
        conv(width, channels, kernel_size=7, padding=3), nn.Tanh())      # c7s1-3 (B, 3, H, W)

def pooled(fake, pool, seen):
    """fake (B, C, S, S), half of the time an earlier one of a pool of 50 (Shrivastava et al. 2017,
    arXiv 1612.07828), so that D does not forget faults that G gave up and could come back to."""
    shown = fake.detach().clone()                      # `fake` itself is for G's half of the step
    for i, new in enumerate(fake.detach()):
        if seen + i < len(pool):                       # seen: how many there were before these
            pool[seen + i:] = new                      # and all after it, so that none is empty
        elif (slot := torch.randint(2 * len(pool), ())) < len(pool):           # half of the time
            shown[i], pool[slot] = pool[slot], new
    return shown

class CycleGAN(GAN):
    """G: X -> Y turns photos X into Monets Y, F: Y -> X does the reverse; D_X and D_Y judge.
    A batch is [x, y], pictures (B, C, S, S) that have nothing to do with each other. A long average
    helps here; in short runs DiffAugment, dropout in both D, kernels of 5 did not (README)."""
    SIZES, BETAS = range(32, 4097, 4), (0.5, 0.999)  # pixels; of Adam, as in the authors' code
    CYCLE, IDENTITY = 10, 5        # lambda in the paper's Eq. 3, and 0.5 lambda for Monet (7.1)

    def __init__(self, size, channels, width, blocks, upsample, **_):
        # PatchGAN: each output of D sees 70x70 pixels (of 256): strokes and colours, not the scene.
        # Smaller left artefacts, the whole picture was no better (Isola et al. 2017, 1611.07004).
        super().__init__([translator(channels, width, blocks, upsample) for _ in 'GF'],
                         [discriminator(channels, width, (2, 2, 2, 1), lambda _: InstanceNorm(),
                                        padding=1, dropout=0) for _ in 'XY'])
        self.register_buffer('pools', torch.zeros(100, channels, size, size))     # 50 of X, 50 of Y
        self.seen = 0              # about how many of each came before this step; by train.py

    def losses(self, x, y):
        """Yield (the loss of both D, values to log); then, when they have learnt, of G and F.
        Cycle: F can bring x back only if G(x) keeps what x shows. But colours can change and change
        back, even day to sunset (5.2). Identity: G(y) is to be y, so G learns to keep colours."""
        (G, F), (D_X, D_Y) = self.generators, self.discriminators
        fake_y, same_y = G(torch.cat([x, y])).chunk(2)  # at once for speed alone, unlike DCGAN's D:
        fake_x, same_x = F(torch.cat([y, x])).chunk(2)  # InstanceNorm never mixes pictures
        values, pools = {}, self.pools.chunk(2)
        for name, D, pool, real, fake in zip('XY', (D_X, D_Y), pools, (x, y), (fake_x, fake_y)):
            on_real, on_fake = D(torch.cat([real, pooled(fake, pool, self.seen)])).float().chunk(2)
            # CycleGAN's Eq. 1, squares for logs (section 4: steadier; D, no logit here, aims at 1
            # for real, 0 for fake), halved (7.1); for Y: (E[(D_Y(y) - 1)^2] + E[D_Y(G(x))^2]) / 2
            values[f'loss_D_{name}'] = ((on_real - 1).square().mean() + on_fake.square().mean()) / 2
        yield sum(values.values()), values
        loss_G = (D_Y(fake_y).float() - 1).square().mean()                   # E[(D_Y(G(x)) - 1)^2]
        loss_F = (D_X(fake_x).float() - 1).square().mean()                   # E[(D_X(F(y)) - 1)^2]
        # Eq. 2, as a mean over pixels: E[|F(G(x)) - x|_1] + E[|G(F(y)) - y|_1]. G can cheat:
        # hide x in a pattern too fine to see, for F to read (Chu et al. 2017, 1712.02950).
        cycle = l1_loss(F(fake_y), x) + l1_loss(G(fake_x), y)
        identity = l1_loss(same_y, y) + l1_loss(same_x, x)  # 5.2: E[|G(y) - y|_1] + E[|F(x) - x|_1]
        loss = loss_G + loss_F + self.CYCLE * cycle + self.IDENTITY * identity    # Eq. 3, and 5.2
        yield loss, dict(loss_G=loss_G, loss_F=loss_F, loss_cycle=cycle, loss_identity=identity)

    def paint(self, image, back=False):
        """Pictures (B, C, H, W) of any size through the averaged G, or F if it is to go back."""
        bottom, right = (8 + -side % 4 for side in image.shape[2:])   # to 4n; 8 px to cut off,
        mode = 'reflect' if min(image.shape[2:]) > 11 else 'replicate'  # as doubling pads with 0
        return self.average[back](pad(image, (8, right, 8, bottom), mode))[..., 8:-bottom, 8:-right]

    def preview(self, x, y):
        """(pictures, columns) of a grid: rows of x, fake_y, cycled_x, y, fake_x, cycled_y."""
        x, y = (a[:min(len(x), len(y)), :, :1000, :1000] for a in (x, y))    # as many; no huge grid
        fake_y, fake_x = self.paint(x), self.paint(y, back=True)
        cycled_x, cycled_y = self.paint(fake_y, back=True), self.paint(fake_x)
        return torch.cat([x, fake_y, cycled_x, y, fake_x, cycled_y]), len(x)
