# ruff: noqa: E501, RUF001 (templates and signs are as their models have them)
"""Small tokenizers and chat templates in the manner of public model families, for tests of prompts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "hello there how are you today",
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "system user assistant think tool USER: ASSISTANT: [INST] [/INST] ### Instruction: <<SYS>>",
    "what is the weather in Paris on 12 March 2024?\n\nI will not help with that.\n",
    "naïve café — «ça va?» Straße 東京 привет 🙂",
    "def f(x):\n    return x + 1\n",
] * 3
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(
    tokens: Sequence[str | AddedToken], *, prefix: bool = False, split: str | None = None, normalizer: Any = None
) -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=split is None)
    cut = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, level])
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return with_tokens(tokenizer, tokens)


def sentencepiece(tokens: Sequence[str | AddedToken], *, form: str = "legacy", replace_only: bool = False) -> Tokenizer:
    """BPE with byte fallback and the white space sign of sentencepiece, as Llama 2, Mistral and Gemma have it."""
    words = ["<unk>", "<s>", "</s>"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=[*words, *pieces], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in words]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    space = normalizers.Replace(" ", "▁")
    if form == "legacy":
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
    elif form == "gemma":
        tokenizer.normalizer = space
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=form, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return with_tokens(tokenizer, tokens)


def unigram(tokens: Sequence[str | AddedToken]) -> Tokenizer:
    """Unigram with its control tokens in the vocabulary and NFKC, as XLM-R and T5 have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", *map(str, tokens)]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_pieces(tokens: Sequence[str | AddedToken]) -> Tokenizer:
    """Lower-cased word pieces with accents stripped, as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return with_tokens(tokenizer, tokens)


def with_tokens(tokenizer: Tokenizer, tokens: Sequence[str | AddedToken]) -> Tokenizer:
    """Add tokens; texts become special tokens."""
    given = [AddedToken(one, special=True, normalized=False) if isinstance(one, str) else one for one in tokens]
    tokenizer.add_tokens(given)
    return tokenizer


def plain(text: str, **flags: bool) -> AddedToken:
    """Return an added token that is not special."""
    return AddedToken(text, **{"special": False, "normalized": False, **flags})


@dataclass(frozen=True)
class Family:
    """A model family, small.

    Attributes:
        tokenizer: makes its tokenizer.
        template: its chat template.
        named: its named tokens.
        refuses_system: whether the template raises for a system message.
        alternates: whether the template raises if user and assistant do not alternate.
        markers: whether role markers are plain text.
        files: further content of tokenizer_config.json.
    """

    tokenizer: Callable[[], Tokenizer]
    template: str | list[dict[str, str]]
    named: dict[str, str] = field(default_factory=dict)
    refuses_system: bool = False
    alternates: bool = False
    markers: bool = False
    files: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the model folder without a model."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer().save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.named, **self.files}
        if isinstance(self.template, str):
            (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")
        else:
            config["chat_template"] = self.template
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ALTERNATE = (
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% endfor %}"
)
FOLD = "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = messages[0]['content'] %}"
UNFOLD = "{% else %}{% set rest = messages %}{% set sys = false %}{% endif %}"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set rest = messages %}"
)
LLAMA2 = (
    FOLD + UNFOLD + ALTERNATE + "{% for m in rest %}{% if loop.index0 == 0 and sys != false %}"
    "{% set text = '<<SYS>>\n' + sys + '\n<</SYS>>\n\n' + m['content'] %}{% else %}{% set text = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' "
    "+ message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{%- if tools is not none %}{{- 'Environment: ipython\n' }}"
    "{%- endif %}{{- 'Today Date: ' + date_string + '\n\n' }}{{- system_message }}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL_V1 = (
    NO_SYSTEM + ALTERNATE + "{{ bos_token }}{% for m in rest %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_V3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{%- set ns = namespace() %}{%- set ns.index = 0 %}{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if message['role'] == 'user' %}{%- if loop.last and system_message is defined %}"
    "{{- '[INST]' + system_message + '\n\n' + message['content'] + '[/INST]' }}{%- else %}"
    "{{- '[INST]' + message['content'] + '[/INST]' }}{%- endif %}{%- else %}"
    "{{- ' ' + message['content'] | trim + eos_token }}{%- endif %}{%- endfor %}"
)
GEMMA = (
    "{{ bos_token }}" + NO_SYSTEM + ALTERNATE + "{% for m in rest %}{% if m['role'] == 'assistant' %}"
    "{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}"
    "{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- else -%}"
    "{%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}"
    "{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = '' -%}"
    "{%- set loop_messages = messages -%}{%- endif -%}{%- for message in loop_messages -%}"
    "{%- if (message['role'] == 'assistant') -%}{%- set role = 'model' -%}{%- else -%}"
    "{%- set role = message['role'] -%}{%- endif -%}"
    "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] is iterable -%}"
    "{%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}{%- endif -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}"
)
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' or (message.role == 'system' and not loop.first) "
    "or (message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
QWEN3 = (
    "{%- if tools %}{{- '<|im_start|>system\n# Tools' }}{%- endif %}"
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if ns.multi_step_tool and message.role == 'user' and message.content is string and not "
    "(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}"
    "{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- if message.content is string %}{%- set content = message.content %}"
    "{%- else %}{%- set content = '' %}{%- endif %}{%- if message.role != 'assistant' %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}{%- else %}"
    "{%- set reasoning_content = '' %}{%- if message.reasoning_content is string %}"
    "{%- set reasoning_content = message.reasoning_content %}{%- else %}{%- if '</think>' in content %}"
    "{%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}{%- endif %}"
    "{%- if loop.index0 > ns.last_query_index %}{%- if loop.last or (not loop.last and reasoning_content) %}"
    "{{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + "
    "content.lstrip('\n') }}{%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}{%- else %}"
    "{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- if enable_thinking is defined and "
    "enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
DEEPSEEK = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, system_prompt='') %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{{ '<｜User｜>' + message['content'] }}{%- endif %}{%- if message['role'] == 'assistant' and "
    "message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI4 = (
    "{% for message in messages %}{{ '<|im_start|>' ~ message['role'] ~ '<|im_sep|>' ~ message['content'] ~ "
    "'<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
SMOLLM3 = (
    "{%- if messages[0].role == 'system' -%}{%- set custom = messages[0].content.replace('/no_think', '').rstrip() -%}"
    "{%- set messages = messages[1:] -%}{%- endif -%}{{- '<|im_start|>system\n## Metadata\nToday Date: ' ~ "
    "strftime_now('%d %B %Y') ~ '\n' -}}{%- if custom -%}{{- custom + '\n' -}}{%- endif -%}{{- '<|im_end|>\n' -}}"
    "{%- for message in messages -%}{%- set content = message.content if message.content is string else '' -%}"
    "{%- if message.role == 'user' -%}{{ '<|im_start|>user\n' + content + '<|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' -%}{%- generation -%}"
    "{{ '<|im_start|>assistant\n' + content.lstrip('\n') + '<|im_end|>\n' }}{%- endgeneration -%}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
OLMO2 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}{% else %}"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
GRANITE = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    '{%- set loop_messages = messages[1:] %}{%- else %}{%- set system_message = "Knowledge Cutoff Date: April 2024.\n'
    "Today's Date: \" + strftime_now('%B %d, %Y') + \".\nYou are Granite.\" %}{%- set loop_messages = messages %}"
    "{%- endif %}{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}"
    "{%- for message in loop_messages %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + "
    "message['content'] + '<|end_of_text|>\n' }}{%- if loop.last and add_generation_prompt %}"
    "{{- '<|start_of_role|>assistant' }}{{- '<|end_of_role|>' }}{%- endif %}{%- endfor %}"
)
COMMAND_R = (
    "{{ bos_token }}"
    + FOLD
    + "{% elif false == true %}{% set rest = messages %}"
    + UNFOLD
    + ALTERNATE
    + "{% if sys != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + sys + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for message in rest %}{% set content = message['content'] %}{% if message['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
FALCON = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{% if message['role'] == 'system' %}"
    "{{ 'System: ' + message['content'] }}{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Falcon: ' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n' + 'Falcon:' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
VICUNA = (
    FOLD + UNFOLD + "{% if sys == false %}{% set sys = 'A chat between a curious user and an artificial intelligence "
    "assistant. The assistant gives helpful, detailed, and polite answers.' %}{% endif %}{{ sys }}"
    "{% for message in rest %}{% if message['role'] == 'user' %}{{ ' USER: ' + message['content'].strip() }}"
    "{% else %}{{ ' ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
ALPACA = (
    FOLD + UNFOLD + "{{ sys + '\n\n' if sys else 'Below is an instruction that describes a task.\n\n' }}"
    "{% for message in rest %}{% if message['role'] == 'user' %}{{ '### Instruction:\n' ~ message['content'] ~ '\n\n' }}"
    "{% else %}{{ '### Response:\n' ~ message['content'] ~ eos_token ~ '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
HARMONY = (
    "{%- macro turn(role, text, channel=none) -%}{{- '<|start|>' + role + ('<|channel|>' + channel if channel else '') "
    "+ '<|message|>' + text -}}{%- endmacro -%}{%- if messages[0].role == 'system' -%}"
    "{%- set developer = messages[0].content -%}{%- set loop_messages = messages[1:] -%}{%- else -%}"
    "{%- set developer = '' -%}{%- set loop_messages = messages -%}{%- endif -%}"
    "{{- turn('system', 'You are ChatGPT.\nCurrent date: ' + strftime_now('%Y-%m-%d')) + '<|end|>' -}}"
    "{%- if developer or tools -%}{{- turn('developer', '# Instructions\n\n' + developer + '\n\n') + '<|end|>' -}}"
    "{%- endif -%}{%- for message in loop_messages -%}{%- if message.role == 'assistant' -%}"
    "{%- if message.thinking and loop.last -%}{{- turn('assistant', message.thinking, 'analysis') + '<|end|>' -}}"
    "{%- endif -%}{{- turn('assistant', message.content, 'final') + '<|end|>' -}}{%- else -%}"
    "{{- turn(message.role, message.content) + '<|end|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}"
)
NEMOTRON = (
    "{{'<extra_id_0>System'}}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'\n' + message['content'].strip()}}{% endif %}{% endfor %}{{'\n'}}"
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ '\n<extra_id_1>' + "
    "(message['role'] | capitalize) + '\n' + message['content'].strip() }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<extra_id_1>Assistant\n' }}{% endif %}"
)
LIMITED = (  # loop controls, a filter block, a set block, join, format and items
    "{%- set lines = [] -%}{%- for m in messages -%}{%- if loop.index > 50 -%}{%- break -%}{%- endif -%}"
    "{%- if not m.content -%}{%- continue -%}{%- endif -%}{%- set body -%}{{ m['content'] | trim }}{%- endset -%}"
    "{{- ['<|im_start|>%s' | format(m.role), body ~ '<|im_end|>', ''] | join('\n') -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '{0}{1}\n'.format('<|im_start|>', 'assistant') }}{%- endif -%}"
)
HEADERS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPM_NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TURNS = ["<start_of_turn>", "<end_of_turn>"]
IM_NAMED = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
STRICT: dict[str, Any] = {"refuses_system": True, "alternates": True}
THINK = [plain("<think>"), plain("</think>"), plain("<tool_call>"), plain("</tool_call>")]

FAMILIES: dict[str, Family] = {
    "llama-2": Family(lambda: sentencepiece([]), LLAMA2, SPM_NAMED, alternates=True, markers=True),
    "llama-3": Family(
        lambda: byte_level(HEADERS, split=SPLIT), LLAMA3, {"bos_token": HEADERS[0], "eos_token": HEADERS[4]}
    ),
    "llama-3.1": Family(
        lambda: byte_level(HEADERS, split=SPLIT), LLAMA31, {"bos_token": HEADERS[0], "eos_token": HEADERS[4]}
    ),
    "mistral-v1": Family(lambda: sentencepiece([]), MISTRAL_V1, SPM_NAMED, markers=True, **STRICT),
    "mixtral": Family(lambda: sentencepiece([], form="first"), MISTRAL_V1, SPM_NAMED, markers=True, **STRICT),
    "mistral-v3": Family(lambda: sentencepiece(["[INST]", "[/INST]"], form="first"), MISTRAL_V3, SPM_NAMED),
    "mistral-tekken": Family(
        lambda: byte_level(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], split=SPLIT), MISTRAL_V3, SPM_NAMED
    ),
    "gemma": Family(
        lambda: sentencepiece([*TURNS, plain("\n\n"), plain("  ", normalized=False), plain("<h1>")], form="gemma"),
        GEMMA,
        SPM_NAMED,
        **STRICT,
    ),
    "gemma-3": Family(lambda: sentencepiece([*TURNS, plain("\n\n")], form="gemma"), GEMMA3, SPM_NAMED),
    "qwen-2": Family(lambda: byte_level(IM, normalizer=normalizers.NFC()), CHATML, IM_NAMED),
    "qwen-2.5": Family(
        lambda: byte_level([*IM, *THINK[2:]], split=SPLIT, normalizer=normalizers.NFC()), QWEN25, IM_NAMED
    ),
    "qwen-3": Family(lambda: byte_level([*IM, *THINK], split=SPLIT, normalizer=normalizers.NFC()), QWEN3, IM_NAMED),
    "deepseek-r1": Family(
        lambda: byte_level(
            [
                "<｜begin▁of▁sentence｜>",
                "<｜end▁of▁sentence｜>",
                plain("<｜User｜>"),
                plain("<｜Assistant｜>"),
                *THINK[:2],
            ],
            split=SPLIT,
        ),
        DEEPSEEK,
        {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"},
    ),
    "phi-3": Family(
        lambda: sentencepiece(
            [
                "<|endoftext|>",
                *(
                    AddedToken(text, special=True, normalized=False, rstrip=True)
                    for text in ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
                ),
            ]
        ),
        PHI3,
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"},
    ),
    "phi-4": Family(
        lambda: byte_level([AddedToken(text, special=True, lstrip=True, rstrip=True) for text in [*IM, "<|im_sep|>"]]),
        PHI4,
        IM_NAMED,
    ),
    "smollm-2": Family(lambda: byte_level(IM), QWEN25, IM_NAMED),
    "smollm-3": Family(lambda: byte_level([*IM, *THINK], split=SPLIT), SMOLLM3, IM_NAMED),
    "olmo-2": Family(
        lambda: byte_level(["<|endoftext|>", "<|pad|>"], split=SPLIT),
        OLMO2,
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"},
        markers=True,
    ),
    "granite": Family(
        lambda: byte_level(["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]),
        GRANITE,
        {"bos_token": "<|end_of_text|>", "eos_token": "<|end_of_text|>"},
    ),
    "command-r": Family(
        lambda: byte_level(
            [
                "<BOS_TOKEN>",
                "<EOS_TOKEN>",
                *(f"<|{name}_TOKEN|>" for name in ("START_OF_TURN", "END_OF_TURN", "SYSTEM", "USER", "CHATBOT")),
            ],
            normalizer=normalizers.NFC(),
        ),
        [{"name": "default", "template": COMMAND_R}, {"name": "tool_use", "template": "{{ tools }}"}],
        {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"},
        alternates=True,
    ),
    "falcon": Family(lambda: byte_level(["<|endoftext|>"]), FALCON, {"eos_token": "<|endoftext|>"}, markers=True),
    "zephyr": Family(lambda: sentencepiece([]), ZEPHYR, SPM_NAMED, markers=True),
    "yi": Family(lambda: sentencepiece(IM, form="never"), CHATML, {"eos_token": "<|im_end|>", "unk_token": "<unk>"}),
    "vicuna": Family(lambda: sentencepiece([]), VICUNA, SPM_NAMED, markers=True),
    "alpaca": Family(lambda: sentencepiece([], form="first"), ALPACA, SPM_NAMED, markers=True),
    "stablelm": Family(
        lambda: byte_level(["<|endoftext|>"], normalizer=normalizers.NFC()),
        ZEPHYR,
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        markers=True,
    ),
    "gpt-oss": Family(
        lambda: byte_level(
            ["<|startoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"], split=SPLIT
        ),
        HARMONY,
        {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"},
    ),
    "nemotron": Family(lambda: sentencepiece(["<extra_id_0>", "<extra_id_1>"], form="always"), NEMOTRON, SPM_NAMED),
    "limited": Family(lambda: byte_level(IM, prefix=True), LIMITED, IM_NAMED),
    "unigram": Family(
        lambda: unigram(["<s>", "</s>", *IM[1:]]),
        CHATML,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "word-pieces": Family(
        lambda: word_pieces(["[CLS]", "[SEP]", "<|im_start|>", plain("<|IM_end|>", normalized=True)]),
        CHATML.replace("<|im_end|>", "<|IM_end|>"),
        {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]"},
    ),
    "normalized-tokens": Family(
        lambda: byte_level(
            [plain("<|im_start|>", normalized=True), plain("<|im_end|>", normalized=True)],
            normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
        ),
        CHATML,
        {"eos_token": "<|im_end|>"},
    ),
    "prepended-tokens": Family(
        lambda: sentencepiece([plain("<|im_start|>", normalized=True), plain("<|im_end|>", normalized=True)]),
        CHATML.replace("'<|im_end|>'", "' <|im_end|>'"),
        SPM_NAMED,
    ),
}
