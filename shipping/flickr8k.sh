#!/bin/sh
# All trainings behind the shipped model, one after the other, into runs/: about ten hours on two CPU cores.
#
#   sh shipping/flickr8k.sh flickr8k:DIR
#
# After an interruption, run it again: it continues. docs/flickr8k.md says what each step brought.
set -eu
data=$1

train() { # NAME RECIPE [settings]
    run=runs/$1 recipe=$2
    shift 2
    [ -e "$run/report.html" ] || showtell train "$recipe" --data "$data" --out "$run" --resume "$@"
}

for teacher in show_attend_and_tell_lite up_down_lite cnn_transformer_lite; do
    train $teacher recipes/$teacher.yaml
done
train frozen shipping/recipes/frozen.yaml
train fine_tuned shipping/recipes/fine_tuned.yaml
train rewarded_1 shipping/recipes/rewarded.yaml --set start_from=runs/fine_tuned
train distilled shipping/recipes/distilled.yaml
train rewarded_2 shipping/recipes/rewarded.yaml --set start_from=runs/distilled --set stages.0.epochs=6
