from lightning_noisy.modules import MultiNetworkModule


class CoTeaching(MultiNetworkModule):
    """Each network learns from the half of the batch that the other one finds easiest."""

    def step(self, batch):
        first, second = (seen.losses for seen in self.all_losses(self.all_outputs(batch.images), batch))
        keep = max(1, len(first) // 2)
        easy_for_first, easy_for_second = first.detach().argsort()[:keep], second.detach().argsort()[:keep]
        return first[easy_for_second].mean() + second[easy_for_first].mean()
