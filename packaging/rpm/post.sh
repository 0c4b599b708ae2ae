systemd-sysusers pgnorth.conf || exit 1
if [ "$1" -eq 1 ] && [ -x /usr/bin/systemctl ]; then
    # The distribution's presets determine whether the service is enabled.
    systemctl --no-reload preset pgnorth.service || :
fi
