"""Adapting a pretrained model to another survey with few labels. The only place that knows peft."""
