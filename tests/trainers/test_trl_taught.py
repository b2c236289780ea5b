"""Teachers: which are taken, and what a configuration without one is told."""

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from taught_checks import make, make_teacher, rows_for
from tiny_language import WORDS, make_model, make_tokenizer
from trainshed.config.load import load_config
from trainshed.config.trainers.distillation import DistillationParameters
from trainshed.config.trainers.gkd import GKDParameters
from trainshed.errors import ConfigError
from trainshed.models.causal_lm import save_causal_lm
from trainshed.trainers.gkd import GKDTrainer

CONFIG = """
execution: {{algorithm: {algorithm}}}
model: {{model_name_or_path: {student}}}
data: {{dataset_name: builtin}}
training: {{{teacher}}}
"""


def other_words():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(reversed(WORDS))}, unk_token="."))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def trained(teacher, tokenizer):
    return GKDTrainer(
        make_model(), make_tokenizer(), rows_for("gkd", 4, 1), teacher=teacher, teacher_tokenizer=tokenizer
    )


def test_a_teacher_with_another_number_of_tokens_is_refused_with_both():
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(
        ConfigError, match=f"student's vocabulary has {len(WORDS)} tokens and the teacher's 40"
    ):
        trained(LlamaForCausalLM(config), make_tokenizer())


def test_a_teacher_with_other_tokens_of_the_same_number_is_refused_with_some_of_them():
    with pytest.raises(
        ConfigError, match=r"15 tokens each, but 14 of them differ: '\.' is token 4 of the student"
    ):
        trained(make_teacher(), other_words())


def test_a_student_is_not_its_own_teacher():
    model = make_model()
    with pytest.raises(ConfigError, match="its own teacher"):
        make("gkd", model=model, teacher=model)


@pytest.mark.parametrize("parameters", [GKDParameters, DistillationParameters])
def test_a_configuration_without_a_teacher_is_refused(parameters):
    with pytest.raises(ValidationError, match="there is no teacher"):
        parameters.split({})


@pytest.mark.parametrize("algorithm", ["gkd", "distillation"])
def test_a_teacher_that_is_not_there_is_found_when_planning(algorithm, tmp_path):
    save_causal_lm(make_model(), make_tokenizer(), tmp_path / "student")
    path = tmp_path / "config.yaml"
    for name, told in ((f"{tmp_path}/gone", "no such file or directory"), (f"{tmp_path}/student", None)):
        # TRL's own name for the key means the same
        for key in ("teacher_name_or_path", "teacher_model_name_or_path"):
            path.write_text(
                CONFIG.format(algorithm=algorithm, student=tmp_path / "student", teacher=f"{key}: {name}")
            )
            if told is None:
                assert load_config(path, environ={})
            else:
                with pytest.raises(ConfigError, match=told):
                    load_config(path, environ={})


def test_a_teacher_is_loaded_frozen(tmp_path):
    save_causal_lm(make_teacher().train(), make_tokenizer(), tmp_path / "teacher")
    own = GKDParameters(teacher_name_or_path=str(tmp_path / "teacher"))
    rows, short = rows_for("gkd", 4, 1), {"max_new_tokens": 2}
    trainer = GKDTrainer(make_model(), make_tokenizer(), rows, parameters=own, arguments=short)
    assert not trainer.teacher.training
    assert not any(parameter.requires_grad for parameter in trainer.teacher.parameters())
