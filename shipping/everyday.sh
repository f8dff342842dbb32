#!/bin/sh
# What is behind the model everyday, one step after the other, into runs/: about ten hours on two CPU cores.
#
#   sh shipping/everyday.sh table:everyday/photos.jsonl,caption=captions flickr8k:DIR LIST
#
# LIST names photos without captions, one on each line. After an interruption, run it again: it continues. The real runs
# took more steps (docs/everyday.md has them all), so expect a similar model, not the same one.
set -eu
everyday=$1 flickr8k=$2 photos=$3

train() { # NAME RECIPE [data and settings]
    run=runs/$1 recipe=shipping/recipes/$2.yaml
    shift 2
    [ -e "$run/report.html" ] || showtell train "$recipe" --out "$run" --resume "$@"
}
said() { # NAME [what python -m shipping.said takes]
    table=runs/said_$1.jsonl
    shift
    [ -e "$table" ] || python -m shipping.said "$table" "$@"
}

for stage in frozen fine_tuned rewarded; do
    train everyday_$stage everyday_$stage --data "$everyday,times=3" --data "$flickr8k,times=0.5"
done
said flickr8k --model flickr8k --data "$flickr8k"
said everyday --model runs/everyday_rewarded --data "$everyday"
said agreed --model runs/everyday_rewarded --model runs/everyday_fine_tuned --model runs/everyday_frozen \
    --photos "$photos" --agree 0.5
train everyday_distilled everyday_distilled --data table:runs/said_everyday.jsonl,times=1.5 \
    --data table:runs/said_flickr8k.jsonl --data table:runs/said_agreed.jsonl,times=0.5
train everyday_rewarded_2 everyday_rewarded --set start_from=runs/everyday_distilled --set stages.0.epochs=6 \
    --data "$everyday,times=2" --data "$flickr8k"
showtell average runs/everyday_distilled runs/everyday_rewarded_2 -o runs/everyday
python -m shipping.ship runs/everyday --name everyday --weights int8 --beam 3 --data "$everyday" --data "$flickr8k"
