"""Teachers: what they see, strict weights from a file, nothing downloaded or run."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.teacher import Teacher

CPU = torch.device("cpu")


def teacher(weights: str = "random", name: str = "test_vit", image_px: int | None = 32) -> Teacher:
    return Teacher(name, weights, image_px, CPU)


@pytest.fixture
def colours() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_it_sees_what_timms_own_model_sees(colours: torch.Tensor, tmp_path: Path) -> None:
    model = timm.create_model("test_vit", img_size=32).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        tokens = model.forward_features((colours - mean) / std)
        expected = model.head(model.fc_norm(tokens[:, 1:]))
        embedding = model((colours - mean) / std)
    for file in ("weights.safetensors", "weights.pth"):
        ours = teacher(str(tmp_path / file))
        torch.testing.assert_close(ours.patches(colours).flatten(1, 2), expected)
        torch.testing.assert_close(ours.embedding(colours), embedding)
        assert ours.stage(colours, -2).shape == (2, 2, 2, 64)


def test_images_are_resized_to_its_own_size(colours: torch.Tensor) -> None:
    assert teacher(image_px=64).patches(colours).shape[1:3] == (4, 4)
    assert teacher(image_px=None).image_px == 160


def test_random_weights_are_the_same_everywhere_and_frozen(colours: torch.Tensor) -> None:
    torch.manual_seed(1)
    first = teacher()
    torch.manual_seed(2)
    assert torch.equal(first.patches(colours), teacher().patches(colours))
    out = first.patches(colours.requires_grad_())
    assert not out.requires_grad


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_of_another_model_are_refused(change: str, tmp_path: Path) -> None:
    state = timm.create_model("test_vit", img_size=32).state_dict()
    if change == "missing":
        del state["blocks.0.norm1.weight"]
    elif change == "unexpected":
        state["extra"] = torch.zeros(1)
    else:
        state["norm.weight"] = torch.zeros(3)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(ConfigError, match=r"bad\.safetensors does not hold the weights of timm's test_vit"):
        teacher(str(tmp_path / "bad.safetensors"))


class Code:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("ran",))


def test_files_that_are_no_tensors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Code()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for name, words in [
        ("code.pth", "could run code"),
        ("list.pth", "no mapping of names to tensors"),
        ("cut.safetensors", "cannot read"),
        ("gone.pth", "cannot read"),
    ]:
        with pytest.raises(ConfigError, match=words):
            teacher(str(tmp_path / name))
    assert "ran" not in capsys.readouterr().out


def test_unknown_names_and_unfit_models_are_named(colours: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"no model 'tset_vit'\. Close to it: .*test_vit"):
        teacher(name="tset_vit")
    with pytest.raises(ConfigError, match="no vision transformer"):
        teacher(name="test_resnet", image_px=None).patches(colours)
