from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline.data.records import Message
from pipeline.text.chat import (
    encode_conversation,
    encode_prompt,
    encode_response,
)
from pipeline.text.tokenizer import Tokenizer

TALK = (
    Message("system", "Be brief."),
    Message("user", "Who may rule a free people?"),
    Message("assistant", "No king may rule it. <eos> is not its end."),
    Message("user", " And what of prices?\n"),
    Message("assistant", "They rose by 12%."),
)


def test_a_conversation_is_laid_out_and_masked_turn_by_turn(byte_bpe: Tokenizer) -> None:
    tokenizer = byte_bpe
    talk = (Message("user", "a b"), Message("assistant", "c"), Message("user", "d"), Message("assistant", "e f"))
    a, c, d, e = (tokenizer.encode(text) for text in ("a b", "c", "d", "e f"))
    found = encode_conversation(talk, tokenizer, max_length=100)
    assert found is not None
    assert found.ids.tolist() == [1, 3, *a, 4, *c, 2, 3, *d, 4, *e, 2]
    counted = [0, 0, *[0] * len(a), 0, *[1] * len(c), 1, 0, *[0] * len(d), 0, *[1] * len(e), 1]
    assert found.is_response.astype(int).tolist() == counted
    assert not found.is_shortened


def test_transformers_applies_the_template_to_the_same_ids(byte_bpe: Tokenizer, tmp_path: Path) -> None:
    byte_bpe.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    talk = [message for message in TALK if "<eos>" not in message.content]
    values = [{"role": message.role, "content": message.content} for message in talk]
    found = encode_conversation(talk, byte_bpe, max_length=1000)
    assert found is not None
    assert theirs.apply_chat_template(values, return_dict=False) == found.ids.tolist()
    prompt = theirs.apply_chat_template(values[:-1], add_generation_prompt=True, return_dict=False)
    assert prompt == encode_prompt(talk[:-1], byte_bpe, max_length=1000).tolist()


def test_prompt_and_response_apart_make_the_same_ids_as_together(byte_bpe: Tokenizer) -> None:
    together = encode_conversation(TALK, byte_bpe, max_length=1000)
    prompt = encode_prompt(TALK[:-1], byte_bpe, max_length=1000)
    response = encode_response(TALK[-1].content, byte_bpe)
    assert together is not None
    assert together.ids.tolist() == [*prompt, *response]
    assert together.is_response[len(prompt) :].all()
    assert not together.is_response[len(prompt) - 1]


def test_text_that_spells_eos_does_not_end_a_response(byte_bpe: Tokenizer) -> None:
    found = encode_conversation(TALK, byte_bpe, max_length=1000)
    assert found is not None
    assert (found.ids == byte_bpe.eos_id).sum() == 2
    assert (found.ids == byte_bpe.bos_id).sum() == 1


_words = st.lists(st.sampled_from(["king", "free", "people", "12%", "x"]), min_size=1, max_size=12).map(" ".join)


@given(st.lists(st.tuples(_words, _words), min_size=1, max_size=4), st.integers(1, 80))
def test_shortening_never_touches_the_last_response_and_keeps_whole_older_turns(
    byte_bpe: Tokenizer, turns: list[tuple[str, str]], max_length: int
) -> None:
    talk = [m for user, answer in turns for m in (Message("user", user), Message("assistant", answer))]
    answer = encode_response(turns[-1][1], byte_bpe).tolist()
    whole = encode_conversation(talk, byte_bpe, max_length=10_000)
    found = encode_conversation(talk, byte_bpe, max_length=max_length)
    assert whole is not None
    if found is None:
        assert max_length < 4 + len(answer)  # <bos> <user> one token <assistant>
        return
    ids = found.ids.tolist()
    assert len(ids) <= max_length
    assert ids[-len(answer) :] == answer
    assert found.is_response[-len(answer) :].all()
    assert ids[:2] == [byte_bpe.bos_id, byte_bpe.id_of("user")]
    assert ids[2:] == whole.ids.tolist()[-len(ids) + 2 :]
    assert found.is_response[2:].tolist() == whole.is_response.tolist()[-len(ids) + 2 :]
    assert found.is_shortened == (len(ids) < len(whole.ids))
    if ids.count(byte_bpe.id_of("user")) > 1:  # more than one turn: all of them whole
        cuts = [len(whole.ids) - 1]
        for user, reply in turns:
            cuts.append(cuts[-1] - 2 - len(byte_bpe.encode(user)) - len(byte_bpe.encode(reply)) - 1)
        assert len(ids) - 1 in cuts


def test_a_prompt_is_shortened_from_the_left_behind_its_role(byte_bpe: Tokenizer) -> None:
    text = "Who may rule a free people when the harbour is empty?"
    ids = byte_bpe.encode(text)
    found = encode_prompt([Message("user", text)], byte_bpe, max_length=8)
    assert found.tolist() == [1, 3, *ids[-5:], 4]


def test_conversations_without_a_prompt_or_a_final_response_are_refused(byte_bpe: Tokenizer) -> None:
    with pytest.raises(ValueError, match="ends with an assistant message, found assistant user"):
        encode_conversation([TALK[2], TALK[3]], byte_bpe, max_length=100)
    with pytest.raises(ValueError, match="a prompt before the last response, found assistant"):
        encode_conversation([TALK[2]], byte_bpe, max_length=100)
    with pytest.raises(ValueError, match="does not end with an assistant"):
        encode_prompt(TALK, byte_bpe, max_length=100)
    with pytest.raises(ValueError, match="max_length: a prompt needs at least 4 tokens, found 3"):
        encode_prompt(TALK[:2], byte_bpe, max_length=3)
