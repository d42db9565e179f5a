"""The networks and the losses of a GAN that learns to paint from noise.

    python train.py && python sample.py -n 64

DCGAN: Radford, Metz, Chintala 2015, arXiv 1511.06434. Two networks play against each other: the
generator G turns noise z into pictures, the discriminator D tells pictures x of the training set
from G's. What to expect: with 300 paintings at 64 px, blots of colour after one minute of two CPU
cores, skies, water and trees after six.

Pictures are tensors (B, C, H, W) in [-1, 1], which is where Tanh, G's last layer, can reach.
"""
import copy
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import affine_grid, conv_transpose2d, grid_sample, pad, softplus
from torch.optim.swa_utils import update_bn

SIZES = (32, 64, 128, 256)
UPSAMPLE = ('resize', 'transposed')
Z = 100                      # numbers in z, as in the DCGAN paper
AVERAGE_DECAY = 0.995        # the average of G's weights looks back over about 200 steps


# --- What the networks are made of

class ResizeConv2d(nn.Conv2d):
    """Nearest-neighbour doubling, then a 3x3 convolution: (B, c_in, H, W) -> (B, c_out, 2H, 2W).

    Doubling is a transposed convolution with a 2x2 box of ones, and two convolutions in a row are
    one, with the convolution of their kernels: the 3x3 kernel spread by the box is 4x4. So this
    costs what a transposed convolution costs (16 products for 4 pixels, where the two steps one
    after the other take 36), but since neighbours share that box it can print no grid.
    """

    def __init__(self, c_in, c_out, bias):
        super().__init__(c_in, c_out, kernel_size=3, padding=1, bias=bias)

    def forward(self, x):
        kernel = self.weight                                     # (c_out, c_in, 3, 3)
        kernel = pad(kernel, (0, 1)) + pad(kernel, (1, 0))       # (c_out, c_in, 3, 4)
        kernel = pad(kernel, (0, 0, 0, 1)) + pad(kernel, (0, 0, 1, 0))     # (c_out, c_in, 4, 4)
        # A transposed convolution stamps its kernel where a convolution looks through it: flip.
        kernel = kernel.flip(2, 3).transpose(0, 1)               # (c_in, c_out, 4, 4)
        return conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def doubling(c_in, c_out, upsample, bias=False):
    """The layer that doubles the resolution: (B, c_in, H, W) -> (B, c_out, 2H, 2W).

    'transposed' is the DCGAN paper's. 'resize' (Odena et al. 2016, distill.pub) is the default
    and the program's one departure from that paper's networks: a transposed convolution writes
    each of the four pixels with weights of its own, and the pictures show it as a fine grid.
    """
    if upsample == 'resize':
        return ResizeConv2d(c_in, c_out, bias=bias)
    return nn.ConvTranspose2d(c_in, c_out, kernel_size=4, stride=2, padding=1, bias=bias)


def stages(size, width):
    """Channels from size / 2 px down to 4 px, e.g. [64, 128, 256, 512] for 64 px and width 64.

    They double while the resolution halves, up to 8 * width, so that 256 px stays affordable.
    """
    return [width * min(2 ** i, 8) for i in range(size.bit_length() - 3)]


def generator(size, channels, width, upsample):
    """DCGAN's G: z (B, 100) -> pictures (B, channels, size, size) in [-1, 1].

    A convolution in front of a BatchNorm has no bias: BatchNorm would subtract it again.
    """
    wide = stages(size, width)[::-1]                       # shapes below: 64 px, width 64
    layers = [nn.Unflatten(1, (Z, 1, 1)),                                    # (B, 100, 1, 1)
              nn.ConvTranspose2d(Z, wide[0], kernel_size=4, bias=False),     # (B, 512, 4, 4)
              nn.BatchNorm2d(wide[0]), nn.ReLU(inplace=True)]
    for c_in, c_out in pairwise(wide):        # (B, 256, 8, 8), (B, 128, 16, 16), (B, 64, 32, 32)
        layers += [doubling(c_in, c_out, upsample),
                   nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    layers += [doubling(wide[-1], channels, upsample, bias=True), nn.Tanh()]  # (B, 3, 64, 64)
    return nn.Sequential(*layers)


def discriminator(size, channels, width):
    """DCGAN's D: pictures (B, channels, size, size) -> logits (B,), above 0 for 'real'.

    It ends in a logit, not in the paper's sigmoid: the losses take log sigmoid of it, which as one
    function (softplus) stays exact where sigmoid has rounded to 0 or 1 and its log is infinite.
    """
    wide = stages(size, width)                             # shapes below: 64 px, width 64
    layers = [nn.Conv2d(channels, wide[0], kernel_size=4, stride=2, padding=1),
              nn.LeakyReLU(0.2, inplace=True)]                               # (B, 64, 32, 32)
    for c_in, c_out in pairwise(wide):       # (B, 128, 16, 16), (B, 256, 8, 8), (B, 512, 4, 4)
        layers += [nn.Conv2d(c_in, c_out, kernel_size=4, stride=2, padding=1, bias=False),
                   nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)]
    layers += [nn.Conv2d(wide[-1], 1, kernel_size=4), nn.Flatten(0)]         # (B,)
    return nn.Sequential(*layers)


def latents(n, rng):
    """z (n, 100) from N(0, 1), off the stream of a numpy generator: 3 and then 5 are the first 8."""
    return torch.from_numpy(rng.standard_normal((n, Z), dtype=np.float32))


# --- The losses, as functions of D's logits

def discriminator_loss(real, fake):
    """D's loss, a scalar, from its logits (B,) for real and for generated pictures.

    Goodfellow et al. 2014 (arXiv 1406.2661), Eq. 1: D maximises E[log D(x)] + E[log(1 - D(G(z)))].
    """
    # With D = sigmoid(logit):  -log D = softplus(-logit)  and  -log(1 - D) = softplus(logit)
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(fake):
    """G's loss, a scalar, from D's logits (B,) for generated pictures: the non-saturating one.

    Eq. 1 as a minimax game would have G minimise E[log(1 - D(G(z)))]. Its slope by the logit is
    -D(G(z)): next to nothing early on, when D is sure, just when G has most to learn. So section 3
    of that paper has G maximise E[log D(G(z))] instead: another loss, with slope D(G(z)) - 1, near
    -1 then. Both push the logit up, so both games rest at the same point; the losses differ.
    """
    # -log D(G(z)) = softplus(-logit)
    return softplus(-fake).mean()


def augment(x):
    """DiffAugment (Zhao et al. 2020, arXiv 2006.10738): colour, translation, cutout; x (B, C, H, W).

    D sees real and generated pictures only through it. With 300 paintings D would soon know each
    by heart and teach G nothing. Changing the real ones alone would teach G to paint the changes;
    on both, and differentiable, they cancel out. Each picture gets changes of its own each time.
    """
    def random(low, high):
        return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high)

    x = x + random(-0.5, 0.5)                                             # brightness
    gray = x.mean(dim=1, keepdim=True)
    x = gray + (x - gray) * random(0, 2)                                  # saturation
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * random(0.5, 1.5)                              # contrast
    size = x.shape[-1]                                                    # H = W here
    shift = torch.empty(len(x), 2, 1, device=x.device).uniform_(-size / 8, size / 8).round()
    turn = torch.eye(2, device=x.device).expand(len(x), 2, 2)             # none: a pure shift
    where = affine_grid(torch.cat([turn, 2 * shift / size], dim=2), x.shape, align_corners=False)
    x = grid_sample(x, where, mode='nearest', align_corners=False)        # whole pixels, then 0
    # Cutout: `where` also tells how far each pixel is from a random point of its picture.
    centre = torch.empty(len(x), 1, 1, 2, device=x.device).uniform_(-1, 1)
    inside = ((where - centre).abs() < 0.5).all(dim=-1).unsqueeze(1)      # half as wide and high
    return x.masked_fill(inside, 0)


# --- The model: what the training loop sees

class GAN(nn.Module):
    """What every model here has: generators, discriminators, and an average of the generators.

    The loop in train.py asks a model for four things: generate(batch), loss_D(batch, fake),
    loss_G(batch, fake), each loss with a dict of figures to log, and preview(sets).
    """

    def __init__(self, generators, discriminators):
        super().__init__()
        self.generators = nn.ModuleList(generators)
        self.discriminators = nn.ModuleList(discriminators)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, mean=0, std=0.02)          # as both papers do
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.average = copy.deepcopy(self.generators).requires_grad_(False).eval()

    @torch.no_grad()
    def update_average(self):
        """Move the average towards the generators' weights: average = d average + (1 - d) G.

        From step to step G chases D around; the average stands still in the middle, and paints
        better than any G on the way. It is the network that sample.py uses.
        """
        for average, current in zip(self.average.parameters(), self.generators.parameters()):
            average.lerp_(current, 1 - AVERAGE_DECAY)


class DCGAN(GAN):
    """G: z -> x paints, D judges; trained on one set of pictures, a batch being [x]."""

    OPTIONS = ('size', 'channels', 'width', 'upsample')

    def __init__(self, size, channels, width, upsample):
        super().__init__([generator(size, channels, width, upsample)],
                         [discriminator(size, channels, width)])

    def generate(self, batch):
        """Pictures for the batch [x (B, C, H, W)], as many as x, from fresh z ~ N(0, 1).

        The paper draws z uniformly from [-1, 1]; Gaussian z, as most code since, paints as well,
        and can be walked through: cos(t) a + sin(t) b of two of them is Gaussian again.
        """
        [G], [x] = self.generators, batch
        return G(torch.randn(len(x), Z, device=x.device))

    def loss_D(self, batch, fake):
        """D's loss for [x] and fake, (B, C, H, W) each, and the figures to log."""
        [D], [x] = self.discriminators, batch
        # Two calls: BatchNorm takes its statistics from one kind of pictures at a time. Mixed in a
        # batch, the kind of one picture would show in the statistics that all of them share.
        # detach(): this loss is D's alone, and no gradient of it needs to go back through G.
        real_logits = D(augment(x)).float()
        fake_logits = D(augment(fake.detach())).float()
        loss = discriminator_loss(real_logits, fake_logits)
        return loss, {'loss_D': loss, 'D_real': real_logits.sigmoid().mean(),
                      'D_fake': fake_logits.sigmoid().mean()}

    def loss_G(self, batch, fake):
        """G's loss for the same fake, now judged by the D that has just learnt from it."""
        [D] = self.discriminators
        loss = generator_loss(D(augment(fake)).float())
        return loss, {'loss_G': loss}

    def settle(self):
        """Give the averaged G BatchNorm statistics that belong to its own weights.

        With copies of G's running statistics, made by other weights, it paints washed-out blue
        pictures. Needed before paint(), whenever the average has moved.
        """
        z = latents(256, np.random.default_rng(1)).to(next(self.parameters()).device)
        update_bn(z.split(64), self.average[0])

    @torch.no_grad()
    def paint(self, z):
        """Pictures (B, C, H, W) by the averaged G for z (B, 100), on whatever device z is."""
        return self.average[0](z.to(next(self.parameters()).device))

    def preview(self):
        """Pictures for a progress grid and its number of columns: always from the same 64 z."""
        self.settle()
        z = latents(64, np.random.default_rng(0))
        return torch.cat([self.paint(part) for part in z.split(16)]), 8
