"""A policy with a value: a causal language model, a scalar head, and the logits of completions.

The value head reads the state before each token, as in Ziegler et al. 2019 (arXiv 1909.08593). Left out: the
losses (`losses`), sampling (`sampling`).
"""

import copy
import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainshed.errors import ConfigError
from trainshed.policy.losses import token_entropy, token_log_probs

ValueKind = Literal["shared", "detached", "separate"]


class ActorCritic(nn.Module):
    """A policy and its value function, as one module with one checkpoint.

    While it trains, the policy has no dropout: the ratio to the policy that sampled would be noise. (With
    gradient checkpointing the library needs the training mode, and dropout of adapters with it.)

    Parameters
    ----------
    policy
        Any causal language model of `transformers`, plain or with adapters.
    value
        Where the value comes from; None leaves it out.

    Raises
    ------
    ConfigError
        When a second model is asked for beside a policy with adapters.
    """

    def __init__(self, policy: Any, value: ValueKind | None = "shared") -> None:
        super().__init__()
        self.policy, self.kind = policy, value
        self._checkpointing = False
        self.critic: nn.Module | None = None
        self.head: nn.Linear | None = None
        if value is not None:
            width = policy.config.get_text_config().hidden_size
            self.head = nn.Linear(width, 1, device=next(policy.parameters()).device)
            # every completion is worth 0 until something is learned: no noise in the first advantages
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        if value == "separate":
            if has_adapters(policy):
                raise ConfigError(
                    "a second model has no place beside a policy with adapters",
                    where="training.value",
                    fix="shared or detached",
                )
            self.critic = copy.deepcopy(policy.base_model).requires_grad_(True)
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_post_hook(_miss_only_what_is_kept)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, length: int, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability, entropy and value of each of the last tokens.

        Parameters
        ----------
        input_ids, attention_mask
            ``[n, p + t]``, prompts padded on the left, completions on the right.
        length
            ``t``.
        temperature
            That of the sampling.

        Returns
        -------
        tuple of Tensor
            Each ``[n, t]``; values are 0 without a head.
        """
        logits, values = self.logits_and_values(input_ids, attention_mask, length)
        log_probs = token_log_probs(logits, input_ids[:, -length:], temperature=temperature)
        return log_probs, token_entropy(logits, temperature=temperature), values

    def logits_and_values(
        self, input_ids: Tensor, attention_mask: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """Return the logits that predict the last tokens ``[n, t, v]``, and the values there ``[n, t]``."""
        own_state = self.head is not None and self.critic is None
        logits, state = completion_logits(
            self.policy, input_ids, attention_mask, length, with_state=own_state
        )
        if self.head is None:
            return logits, torch.zeros(logits.shape[:2], device=logits.device)
        if self.critic is not None:
            found = self.critic(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            state = found.last_hidden_state[:, -length - 1 : -1]
        assert state is not None
        if self.kind == "detached":
            state = state.detach()
        return logits, self.head(state.to(self.head.weight.dtype))[..., 0].float()

    def train(self, mode: bool = True) -> "ActorCritic":
        """Set the mode; the policy's dropout stays off, see the class."""
        self.training = mode
        for part in self.children():
            part.train(mode and self._checkpointing)
        return self

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Compute activations again instead of keeping them."""
        self._checkpointing = True
        self.policy.gradient_checkpointing_enable(**options)
        if has_adapters(self.policy):
            self.policy.enable_input_require_grads()


def completion_logits(
    model: Any, input_ids: Tensor, attention_mask: Tensor, length: int, *, with_state: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the logits that predict the last tokens, and the hidden states that they come from.

    Parameters
    ----------
    model
        Any causal language model.
    input_ids, attention_mask
        ``[n, p + t]``, padded on the left before the prompts.
    length
        ``t``, fewer than all tokens.
    with_state
        Whether to return the states too.

    Returns
    -------
    tuple
        ``[n, t, v]``, and ``[n, t, h]`` or None.
    """
    more = _options(model, attention_mask, keep=length + 1)
    if with_state:
        more["output_hidden_states"] = True
    found = model(input_ids=input_ids, attention_mask=attention_mask, **more)
    state = found.hidden_states[-1][:, -length - 1 : -1] if with_state else None
    return found.logits[:, -length - 1 : -1], state


def next_logits(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the logits ``[n, v]`` of the token after the last; texts are padded on the left."""
    more = _options(model, attention_mask, keep=1)
    return model(input_ids=input_ids, attention_mask=attention_mask, **more).logits[:, -1]


def _options(model: Any, attention_mask: Tensor, *, keep: int) -> dict[str, Any]:
    """Return what a model takes besides tokens: positions that count no padding, and only the last logits."""
    takes = _arguments_of(model)
    more: dict[str, Any] = {"use_cache": False}
    if "position_ids" in takes:
        more["position_ids"] = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    if "logits_to_keep" in takes:
        more["logits_to_keep"] = keep
    return more


def has_adapters(model: Any) -> bool:
    """Return whether a model is one of PEFT's."""
    return hasattr(model, "disable_adapter") and hasattr(model, "get_base_model")


def _arguments_of(model: Any) -> Any:
    model = getattr(model, "module", model)  # one of several processes wraps it
    inner = model.get_base_model() if has_adapters(model) else model
    # the class's forward: mixed precision may have wrapped the object's
    return inspect.signature(type(inner).forward).parameters


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Leave out of a checkpoint what shares its memory with another weight, and an adapter's frozen base.

    Safetensors takes no shared memory; what is left out is there again when the model is made.
    """
    kept = set(state)
    if isinstance(module, ActorCritic) and has_adapters(module.policy):
        kept = {prefix + name for name, parameter in module.named_parameters() if parameter.requires_grad}
    seen: set[int] = set()
    for name in list(state):
        place = state[name].data_ptr()
        if name not in kept or (state[name].numel() and place in seen):
            del state[name]
        else:
            seen.add(place)


def _miss_only_what_is_kept(module: nn.Module, keys: Any) -> None:
    """Do not miss in a checkpoint what `_leave_out` left out of it."""
    kept = set(module.state_dict())
    keys.missing_keys[:] = [name for name in keys.missing_keys if name in kept]


def sequence_log_probs(model: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of the masked tokens of each row, given what stands before them.

    Parameters
    ----------
    model
        Any causal language model.
    input_ids
        ``[n, t]``, padded on the right; padding needs no mask, since a position sees only what stands before.
    mask
        ``[n, t]``, true for tokens that count; the first column counts nothing.

    Returns
    -------
    Tensor
        ``[n]`` in nats.
    """
    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1]
    found = token_log_probs(logits, input_ids[:, 1:])
    return (found * mask[:, 1:]).sum(1)
