systemd-sysusers pgnorth.conf || exit 1
if [ "$1" -eq 1 ] && [ -x /usr/bin/systemctl ]; then
    # Enabled or not: the distribution's presets say so.
    systemctl --no-reload preset pgnorth.service || :
fi
